//! What the fixture `emit` must have written, computed again, and where its binary lies.
//! Does not know how the bytes were captured.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use sha2::{Digest, Sha256};

/// The path of the fixture. `cargo test` builds examples, `cargo test --test NAME` does not.
pub fn emit() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = examples().join("emit");
        if !is_fresh(&path) {
            build();
        }
        path.into_os_string().into_string().expect("a UTF-8 path")
    })
}

fn is_fresh(binary: &Path) -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/emit.rs");
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    match (modified(binary), modified(&source)) {
        (Ok(binary), Ok(source)) => binary >= source,
        _ => false,
    }
}

fn examples() -> PathBuf {
    Path::new(super::BINARY)
        .parent()
        .expect("a binary lies in a directory")
        .join("examples")
}

fn build() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", "emit"]);
    if examples().parent().is_some_and(|d| d.ends_with("release")) {
        cargo.arg("--release");
    }
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("cargo runs").success());
}

/// The bytes that `emit --seed SEED` writes to a stream (0 stdout, 1 stderr).
pub fn content(seed: u64, stream: u64, length: u64, raw: bool) -> Vec<u8> {
    let key = seed.wrapping_mul(2).wrapping_add(stream);
    let length = length as usize;
    let mut bytes = Vec::with_capacity(length + 8);
    for word in 0..length.div_ceil(8) as u64 {
        bytes.extend_from_slice(&mix(key ^ mix(word)).to_le_bytes());
    }
    bytes.truncate(length);
    if !raw {
        for byte in &mut bytes {
            *byte = b' ' + *byte % 95;
        }
        for at in (63..length).step_by(64) {
            bytes[at] = b'\n';
        }
    }
    bytes
}

/// splitmix64, also the tests' source of numbers that follow from a seed.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SHA-256 in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Compares long byte strings without printing them whole.
#[track_caller]
pub fn assert_bytes(got: &[u8], want: &[u8], what: &str) {
    if got == want {
        return;
    }
    let at = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| {
        let end = bytes.len().min(at + 40);
        String::from_utf8_lossy(&bytes[at.min(end)..end]).into_owned()
    };
    panic!(
        "{what}: {} bytes instead of {}; they differ at {at}: got {:?}, expected {:?}",
        got.len(),
        want.len(),
        near(got),
        near(want)
    );
}
