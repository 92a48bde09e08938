//! The generated code of package `trunkline.v1`, and its descriptors.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

tonic::include_proto!("trunkline.v1");

/// An encoded `google.protobuf.FileDescriptorSet` of the package and all it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trunkline.v1.bin"));
