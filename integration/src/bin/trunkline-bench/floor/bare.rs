//! What gRPC, TLS and the system cost by themselves, without a controller behind them.

pub(crate) mod handshakes;
pub(crate) mod streams;
