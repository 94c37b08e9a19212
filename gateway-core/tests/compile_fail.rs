//! What must not compile does not, for the named reason; and what stands beside it does.
//!
//! Each `fail_*.rs` begins with the error it must fail with and has a `pass_*.rs` twin that goes through the
//! pipeline. The compiler is run on them directly, against the library this test was built with: a second build of the whole
//! dependency tree, as test frameworks for this do, would take minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the libraries beside this test are.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

/// The newest build of a library.
fn library(name: &str) -> PathBuf {
    let prefix = format!("lib{name}-");
    let named = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.starts_with(&prefix) && file.ends_with(".rlib")
    };
    let files = std::fs::read_dir(libraries()).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(named)
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .expect("the library is built")
}

/// Compiles a file and returns whether it worked and what the compiler said.
fn compile(file: &Path, out: &Path) -> (bool, String) {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition", "2024", "--emit", "metadata", "--crate-type", "bin", "--out-dir"])
        .arg(out)
        .arg("-L");
    rustc.arg(format!("dependency={}", libraries().display()));
    rustc.arg("--extern").arg(format!("gateway_core={}", library("gateway_core").display()));
    let output = rustc.arg(file).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn cases(prefix: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect()
}

#[test]
fn shortcuts_do_not_compile() {
    let out = tempfile::tempdir().unwrap();
    let files = cases("fail_");
    assert!(files.len() >= 5);
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        let expected = source.lines().next().unwrap().trim_start_matches("//! ");
        let (built, said) = compile(&file, out.path());
        assert!(!built, "{} compiles", file.display());
        let errors: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("error") && !line.starts_with("error: aborting"))
            .collect();
        assert!(
            !errors.is_empty() && errors.iter().all(|e| e.starts_with(expected)),
            "{}: {said}",
            file.display()
        );
    }
}

#[test]
fn the_way_through_the_pipeline_compiles() {
    let out = tempfile::tempdir().unwrap();
    for file in cases("pass_") {
        let (built, said) = compile(&file, out.path());
        assert!(built, "{}: {said}", file.display());
    }
}
