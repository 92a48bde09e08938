//! Compiles the .proto files in pure Rust (protox): no protoc has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 7] = [
    "trunkline/v1/resource.proto",
    "trunkline/v1/node.proto",
    "trunkline/v1/slice.proto",
    "trunkline/v1/fleet.proto",
    "trunkline/v1/watch.proto",
    "trunkline/v1/event.proto",
    "trunkline/v1/explain.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=trunkline");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Served by reflection, and walked by the test that every method has an access rule.
    fs::write(out.join("trunkline.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
