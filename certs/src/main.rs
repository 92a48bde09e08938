//! `trunkline-certs`: makes a certificate authority and the bundles of everybody who takes part.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use trunkline_certs::authority::{Authority, DEFAULT_DAYS, Leaf};
use trunkline_certs::{Bundle, CERT_FILE, Certificate, Role, format_time};

/// Certificates for a Trunkline cluster.
///
/// Make an authority once, then issue a bundle (a directory with certificate, key and the authority's certificate) to each
/// controller, worker, network node and person.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  trunkline-certs init --dir ca
  trunkline-certs issue --dir ca controller c1 --dns controller.example.org --ip 192.0.2.10 --out c1
  trunkline-certs issue --dir ca worker w1 --out w1
  trunkline-certs issue --dir ca operator alice --out alice
  trunkline-certs show w1";

#[derive(Subcommand)]
enum Command {
    /// Make a new certificate authority.
    Init {
        /// Directory to make; keep it off the cluster's machines, whoever has it can be anybody.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Name of the cluster, like a DNS name; certificates of another trust domain are refused.
        #[arg(long, value_name = "NAME", default_value = "trunkline.local")]
        trust_domain: String,
    },
    /// Issue a bundle.
    Issue(Issue),
    /// Say what a bundle or a certificate is, and whether a bundle is right.
    Show {
        /// Directory of a bundle, or a certificate in PEM.
        path: PathBuf,
    },
}

#[derive(clap::Args)]
struct Issue {
    /// Directory of the authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// controller, worker, netnode, operator or viewer.
    role: Role,
    /// Name of the holder: 1 to 32 of a-z 0-9 - . (a worker's or network node's name in the cluster, or a person's).
    name: String,
    /// Directory to make for the bundle.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// DNS name that the controller is called by; may be given more than once.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// IP address that the controller is called by; may be given more than once.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Validity in days.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_DAYS)]
    days: u32,
    /// Renew the bundle that is in --out, with a new key; running programs take it into use by themselves.
    #[arg(long)]
    replace: bool,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Init { dir, trust_domain } => init(&dir, &trust_domain),
        Command::Issue(request) => issue(request),
        Command::Show { path } => show(&path),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain in a line; anyhow's own form adds a backtrace that helps no operator.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init(dir: &Path, trust_domain: &str) -> Result<()> {
    let authority =
        Authority::create(dir, trust_domain).with_context(|| format!("no authority was made in {}", dir.display()))?;
    println!(
        "made the authority of {} in {}",
        authority.trust_domain(),
        dir.display()
    );
    println!("  valid until {}", format_time(authority.not_after_unix()));
    println!(
        "  keep {} secret: whoever has it can be anybody",
        dir.join("ca.key").display()
    );
    println!(
        "next: trunkline-certs issue --dir {} controller NAME --dns NAME --out DIR",
        dir.display()
    );
    Ok(())
}

fn issue(request: Issue) -> Result<()> {
    let Issue {
        dir,
        role,
        name,
        out,
        dns,
        ip,
        days,
        replace,
    } = request;
    let authority = Authority::open(&dir)
        .with_context(|| format!("no authority in {}; `trunkline-certs init` makes one", dir.display()))?;
    let leaf = Leaf {
        role,
        name,
        dns,
        ips: ip,
        days,
    };
    let issued = if replace {
        authority.renew(&leaf, &out)
    } else {
        authority.issue(&leaf, &out)
    };
    let facts = issued.with_context(|| format!("nothing was issued to {}/{}", leaf.role, leaf.name))?;
    println!("issued {} in {}", facts.identity, out.display());
    describe(&facts);
    Ok(())
}

fn show(path: &Path) -> Result<()> {
    if path.is_dir() {
        let bundle = Bundle::load(path).with_context(|| format!("the bundle in {} is not right", path.display()))?;
        println!("{}: a right bundle of {}", path.display(), bundle.identity());
        describe(bundle.certificate());
        return Ok(());
    }
    let facts = Certificate::from_pem_file(path)
        .with_context(|| format!("{} is neither a bundle's directory nor a {CERT_FILE}", path.display()))?;
    println!(
        "{}: a certificate of {} (key and authority were not checked)",
        path.display(),
        facts.identity
    );
    describe(&facts);
    Ok(())
}

fn describe(facts: &Certificate) {
    println!("  identity    {}", facts.identity.uri());
    println!("  valid from  {}", format_time(facts.not_before));
    println!("  valid until {}", format_time(facts.not_after));
    println!("  serial      {}", facts.serial);
    let names = facts
        .dns
        .iter()
        .cloned()
        .chain(facts.ips.iter().map(ToString::to_string))
        .collect::<Vec<_>>();
    if !names.is_empty() {
        println!("  serves as   {}", names.join(", "));
    }
}
