//! Logs and traces.
//!
//! Logs go to standard error, as text or as JSON, filtered as configured. Traces go by OTLP (gRPC) to the configured endpoint, or
//! nowhere; the log filter has no say in them. A trace crosses processes as a W3C `traceparent`: in gRPC metadata, or in a field of a message.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use thiserror::Error;
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

const TRACEPARENT: &str = "traceparent";

/// The section `[telemetry]` of a daemon's file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or by module, `info,trunkline_agent=debug`.
    pub log_filter: String,
    /// Where traces go by OTLP over gRPC, `http://127.0.0.1:4317`; absent: nowhere.
    pub otlp_endpoint: Option<String>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs or traces could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The log filter is wrong.
    #[error("log_filter `{filter}` is not understood: write `info`, or by module `info,trunkline_agent=debug`")]
    Filter {
        /// As configured.
        filter: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// The OTLP endpoint is wrong.
    #[error("otlp_endpoint `{endpoint}` cannot be used: write `http://host:4317`")]
    Exporter {
        /// As configured.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
    /// Somebody else set up logs in this process.
    #[error("logs are set up already")]
    Twice(#[from] TryInitError),
}

/// Keeps traces flowing; end it with [`Telemetry::shutdown`], or the last spans are lost.
#[derive(Debug)]
#[must_use = "the last spans leave only through shutdown"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
        }
    }
}

/// Sets up logs and traces for this process. `service` is the program, `instance` the node or host it runs as. With an endpoint it must
/// be called within a runtime.
///
/// # Errors
/// Filter or endpoint are wrong, or it was called before.
pub fn init(service: &'static str, instance: &str, config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let TelemetryConfig {
        log_format,
        log_filter,
        otlp_endpoint,
    } = config;
    let filter = EnvFilter::try_new(log_filter).map_err(|source| TelemetryError::Filter {
        filter: log_filter.clone(),
        source,
    })?;
    let provider = otlp_endpoint
        .as_deref()
        .map(|endpoint| provider(service, instance, endpoint))
        .transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
        // Everything from `info` up, whatever the log shows; what the transport libraries say is below that.
        layer.with_filter(LevelFilter::INFO)
    });
    let logs: Box<dyn Layer<Registry> + Send + Sync> = match log_format {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colours())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
    };
    tracing_subscriber::registry().with(logs).with(traces).try_init()?;
    Ok(Telemetry { provider })
}

/// Colours are for a terminal; in a file or a journal they are noise. `NO_COLOR` turns them off there, too.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Telemetry {
    /// Sends what is left and ends. Waits as long as the exporter does, at most some seconds.
    pub async fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        // It blocks until the last batch is out, and the batch needs this runtime to get there.
        match tokio::task::spawn_blocking(move || provider.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
            Err(error) => tracing::warn!(%error, "the trace exporter did not end well"),
        }
    }
}

/// W3C trace context of the current span; empty when nobody traces.
pub fn current_traceparent() -> String {
    traceparent(&Span::current())
}

/// W3C trace context of `span`; empty when nobody traces.
pub fn traceparent(span: &Span) -> String {
    let context = span.context();
    let mut carrier = HashMap::new();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut carrier);
    }
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// Makes `span` a child of the span behind `traceparent`. Empty or wrong text changes nothing. Call it before the span is entered.
pub fn set_parent(span: &Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    if parent.span().span_context().is_valid() {
        // Fails where nobody traces, which is no trouble.
        let _ = span.set_parent(parent);
    }
}

/// Puts the current trace context into a call's metadata.
pub fn inject(metadata: &mut MetadataMap) {
    if let Ok(value) = MetadataValue::try_from(current_traceparent())
        && !value.is_empty()
    {
        metadata.insert(TRACEPARENT, value);
    }
}

/// The trace context in a call's metadata; empty when there is none.
pub fn extract(metadata: &MetadataMap) -> &str {
    metadata
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn provider(service: &'static str, instance: &str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| TelemetryError::Exporter {
            endpoint: endpoint.to_owned(),
            source,
        })?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build())
}

#[cfg(test)]
mod tests;
