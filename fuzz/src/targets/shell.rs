//! Command lines.

use std::thread;

use gateway_ssh::shell::Analysis;

use super::{Target, outcome};

pub const TARGET: Target = Target {
    name: "shell",
    run,
    words: &[
        b"echo ",
        b"sh -c '",
        b"\"$(",
        b")\"",
        b"`",
        b"((((((((((((((((",
        b"{ { { { { { { { ",
        b"$(( ",
        b"${x:-",
        b"}",
        b"<(",
        b" > /x",
        b" 2>&1",
        b" <<E\n",
        b"\nE\n",
        b" | ",
        b" && ",
        b"; ",
        b" & ",
        b"if a; then ",
        b"; fi",
        b"case x in ",
        b") ;; esac",
        b"for x in *; do ",
        b"; done",
        b"f() { ",
        b"env A=1 ",
        b"sudo -u x ",
        b"xargs ",
        b"find . -exec ",
        b" ';'",
        b"eval ",
        b"$'\\x41'",
        b"\\\n",
        b"\xc2\xa0",
        b"\0",
        b"rsync --server --sender -e.x . /a",
        b"git-upload-pack '/r'",
        b"[[ a =~ ",
        b"time ! ",
        b"{a,b}{c,d}",
    ],
};

/// The stack of a runtime's worker: an overflow would take the whole process with it.
const STACK_BYTES: usize = 2 << 20;

fn run(input: &[u8]) -> u64 {
    thread::scope(|scope| {
        let analysis = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || analyse(input));
        analysis.expect("a thread").join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })
}

fn analyse(input: &[u8]) -> u64 {
    let analysis = Analysis::of(input);
    assert_eq!(analysis, Analysis::of(input), "the same line is understood in two ways");
    if let Some(canonical) = &analysis.canonical {
        check(&analysis, canonical);
    } else {
        assert!(!analysis.resolved(), "nothing is open, and there is no form to send");
    }
    let programs: Vec<_> = analysis.names().into_iter().take(2).map(|name| name.len().min(8)).collect();
    let server = analysis.server.as_ref().map(|server| server.name());
    let reasons: Vec<_> = analysis.reasons().into_iter().map(|reason| reason.as_str()).collect();
    outcome((analysis.argv.is_some(), programs, server, reasons))
}

/// What is sent means what was judged: understood again it runs the same programs, opens the same files and is the same server.
fn check(analysis: &Analysis, canonical: &str) {
    let again = Analysis::of(canonical.as_bytes());
    if let (Some(then), Some(now)) = (&analysis.argv, &again.argv) {
        assert_eq!(then, now, "`{canonical}` has other words");
    }
    assert_eq!(again.programs(), analysis.programs(), "`{canonical}` runs other programs");
    assert_eq!(again.files, analysis.files, "`{canonical}` opens other files");
    if analysis.resolved() {
        assert!(again.resolved(), "`{canonical}` is less certain");
        assert_eq!(again.server, analysis.server, "`{canonical}` is another server");
    }
}
