//! Compiles the protos without protoc, so that a bare machine with cargo can build.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto_root = std::path::Path::new("../proto");
    println!("cargo:rerun-if-changed={}", proto_root.display());
    let descriptors = protox::compile([proto_root.join("mumian_core/v1/assess.proto")], [proto_root])?;
    prost_build::Config::new()
        .btree_map(["."]) // iteration order must not depend on a hash seed
        .type_attribute("mumian.api.v1.LatencySlo", "#[derive(Eq, Hash)]") // part of a task's demand
        .include_file("wire.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
