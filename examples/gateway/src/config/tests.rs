//! The example is right; mistakes are told with their place, key and remedy.

use std::fs;
use std::path::Path;

use super::*;
use crate::assemble::{EnvSecrets, assemble};

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.example.toml")).unwrap()
}

/// What a configuration with this text, beside the example's policies, leads to.
fn problems_of(text: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("gateway.toml");
    match ConfigFile::parse(&folder, text.to_owned()) {
        Err(problem) => problem.to_string(),
        Ok(file) => match assemble(&file, EnvSecrets::Refuse) {
            Err(problems) => problems.to_string(),
            Ok(_) => "no problem".to_owned(),
        },
    }
}

#[test]
fn the_example_is_right() {
    assert_eq!(problems_of(&example()), "no problem");
}

#[test]
fn mistakes_are_told_with_key_and_remedy() {
    // What is replaced in the example, by what, and what must stand in the message.
    let table: &[(&str, &str, &[&str])] = &[
        (
            "data_dir = ",
            "data_dri = ",
            &["gateway.toml:9:1", "unknown key `data_dri`", "did you mean `data_dir`?"],
        ),
        ("data_dir = \"data\"", "", &["`gateway`", "missing key `data_dir`", "add `data_dir = ...`"]),
        ("[gateway]", "[gatevay]", &["unknown key `gatevay`", "did you mean `gateway`?"]),
        (
            "audiences = [\"gateway\"]",
            "audiences = \"gateway\"",
            &["audiences", "expected a sequence", "square brackets"],
        ),
        ("audiences = [\"gateway\"]", "audiences = []", &["`issuer.audiences`", "audiences = [\"gateway\"]"]),
        ("discovery = true", "", &["where the issuer's keys are", "`discovery = true`"]),
        ("discovery = true", "discovery = true\njwks_url = \"https://x\"", &["exactly once", "`jwks_url"]),
        (
            "discovery = true",
            "jwks_file = \"absent.json\"",
            &["absent.json", "cannot be read", "correct its path"],
        ),
        (
            "kind = \"agent\"",
            "kind = \"agnt\"",
            &["issuer", "unknown variant `agnt`", "did you mean `agent`?"],
        ),
        ("groups = \"groups\"", "groups = \"a..b\"", &["claims.groups", "`a..b` is not a claim path"]),
        ("# leeway = \"30s\"", "leeway = \"30\"", &["leeway", "not a length of time", "`30s`"]),
        ("# leeway = \"30s\"", "leeway = \"10m\"", &["`issuer`", "over 5 minutes"]),
        (
            "# algorithms = [\"RS256\", \"ES256\", \"EdDSA\"]",
            "algorithms = [\"HS256\"]",
            &["algorithms", "HS256"],
        ),
        ("policies/reveal.cedar", "policies/absent.cedar", &["absent.cedar", "cannot be read"]),
        (
            "files = [\"policies/shop.cedar\", \"policies/reveal.cedar\"]",
            "files = []",
            &["no policy", "Cedar"],
        ),
        ("policies/reveal.cedar", "Cargo.toml", &["`policy.files`", "Cargo.toml", "gateway policy check"]),
        ("(true|1", "((true|1", &["`patterns`", "mass_change", "correct or remove the pattern"]),
        (
            "disabled = [\"ipv4\", \"ipv6\"]",
            "disabled = [\"ipv5\"]",
            &["`masking.disabled`", "did you mean `ipv"],
        ),
        (
            "phone = \"partial:2\"",
            "phone = \"hash\"",
            &["`masking.transforms`", "answer guesses", "labels of columns"],
        ),
        (
            "phone = \"partial:2\"",
            "phone = \"blur\"",
            &["masking.transforms.phone", "unknown transform `blur`", "`redact`"],
        ),
        ("class = \"employee_number\"", "class = \"Employee\"", &["`masking.rule.class`", "Employee"]),
        ("pattern = 'EMP-[0-9]{6}'", "pattern = '(EMP'", &["`masking.rule`", "employee-number"]),
        (
            "protocol = \"postgres\"",
            "protocol = \"mysql\"",
            &["target", "unknown variant `mysql`", "`postgres`"],
        ),
        ("host = \"127.0.0.1\"", "", &["`target`", "where the server is", "`socket ="]),
        ("sslmode = \"disable\"", "sslmode = \"verify\"", &["unknown variant `verify`", "`verify-full`"]),
        (
            "sslmode = \"disable\"",
            "sslmode = \"disable\"\nsslnegotiation = \"direct\"",
            &["`target.sslnegotiation`", "or stricter"],
        ),
        (
            "sslmode = \"disable\"",
            "sslmode = \"disable\"\nmax_protocol_version = \"3.1\"",
            &["unknown variant `3.1`", "`3.2`"],
        ),
        (", password_file = \"shop.password\" }\n", " }\n", &["`target.credential`", "`password_file"]),
        (
            "password_file = \"shop.password\"",
            "password_env = \"X\"",
            &["password_env", "--demo-insecure-env"],
        ),
        (
            "shop.public.customers.email",
            "public.customers.email",
            &["labels.column", "`database.schema.table.column`"],
        ),
        (
            "shop.public.customers.email",
            "shoo.public.customers.email",
            &["`target.labels.column`", "`shoo`", "begin the column with `shop.`"],
        ),
        ("class = \"us_ssn\"", "clas = \"us_ssn\"", &["unknown key `clas`", "did you mean `class`?"]),
        ("target = \"shop\"", "target = \"shpo\"", &["`listener.target`", "no target `shpo`"]),
        ("127.0.0.1:6432", "0.0.0.0:6432", &["`listener`", "without TLS", "`tls ="]),
        ("127.0.0.1:6432", "localhost", &["address", "invalid socket address"]),
        ("# require_tls = false", "require_tls = true", &["requires TLS", "add `tls ="]),
        (
            "# token_login = \"password\"",
            "token_login = \"basic\"",
            &["unknown variant `basic`", "`oauthbearer`"],
        ),
        ("durability = \"default\"", "durability = \"none\"", &["recording", "`none`", "`strict`"]),
        ("delivery = \"hold\"", "delivery = hold", &["gateway.toml:"]),
        ("[[listener]]", "[[listner]]", &["unknown key `listner`", "did you mean `listener`?"]),
    ];
    for (before, after, expected) in table {
        assert!(example().contains(before), "the example has no `{before}`");
        let told = problems_of(&example().replacen(before, after, 1));
        for words in *expected {
            assert!(told.contains(words), "`{before}` -> `{after}`: no `{words}` in:\n{told}");
        }
        assert!(told.contains("\n  help: "), "no remedy in:\n{told}");
    }
}

/// The example with its SSH part switched on, and a key file that is not there yet.
fn with_ssh() -> String {
    let text = example();
    let (before, rest) = text.split_once("# ---- SSH").unwrap();
    let (ssh, after) = rest.split_once("# ---- Recording").unwrap();
    let ssh: Vec<&str> = ssh.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    format!("{before}# ---- SSH{}\n# ---- Recording{after}", ssh.join("\n"))
}

#[test]
fn the_examples_ssh_part_is_right() {
    assert_eq!(problems_of(&with_ssh()), "no problem");
}

#[test]
fn mistakes_about_ssh_are_told_with_key_and_remedy() {
    const CA: &str = "AAAAIJcmwQxj5Vm0E4d8Y9iTnSMcUzyhbD5xEhFvM9nJ7y0f";
    let table: &[(&str, &str, &[&str])] = &[
        (
            "AAAAIJcmw",
            "AAAAIJ",
            &["gateway.toml:", "`ssh_login.authority.public_key`", "not a public key", ".pub"],
        ),
        ("AAAAIKcmwQxj5Vm0E4d8Y9iTnSMcUzyhbD5xEhFvM9nJ7y0f", CA, &["ssh_login.key.public_key", "twice"]),
        ("user = \"robot-1\"", "usr = \"robot-1\"", &["unknown key `usr`", "did you mean `user`?"]),
        ("revoked = [5, 6]", "revoked = [\"x\"]", &["revoked", "expected u64"]),
        ("host_keys = [", "host_kyes = [", &["unknown key `host_kyes`", "did you mean `host_keys`?"]),
        ("AAAAILcmw", "AAAA", &["`target.host_keys`", "not a public key"]),
        ("name = \"web1\"", "name = \"web 1\"", &["`target.name`", "`web 1`", "agent%web1"]),
        ("host = \"10.0.0.5\"", "", &["`target`", "where the server is", "`port` if it is not 22"]),
        ("host = \"10.0.0.5\"", "host = \"h\"\nsslmode = \"require\"", &["`target.sslmode`", "not for SSH"]),
        (
            "host = \"10.0.0.5\"",
            "host = \"h\"\nsslnegotiation = \"direct\"",
            &["`target.sslnegotiation`", "not for SSH"],
        ),
        ("host = \"10.0.0.5\"", "host = \"h\"\nknown_hosts = \"absent\"", &["absent", "cannot be read"]),
        (
            "host = \"10.0.0.5\"",
            "host = \"h\"\nknown_hosts = \"Cargo.toml\"",
            &["Cargo.toml", "line 1 is not", "ssh-keyscan"],
        ),
        ("key_file = \"web1.key\"", "", &["`target.credential`", "`key_file"]),
        ("targets = [\"web1\"]", "targets = [\"web2\"]", &["no target `web2`", "did you mean `web1`?"]),
        ("targets = [\"web1\"]", "targets = []", &["`listener.target`", "exactly once"]),
        (
            "targets = [\"web1\"]",
            "targets = [\"web1\", \"shop\"]",
            &["`listener.targets`", "only SSH targets"],
        ),
        (
            "targets = [\"web1\"]",
            "target = \"web1\"\nrequire_tls = true",
            &["listener.require_tls", "not for SSH"],
        ),
        (
            "data/ssh_host_ed25519_key",
            "Cargo.toml",
            &["`listener.host_key`", "Cargo.toml", "only the gateway's user"],
        ),
        ("silence = \"5m\"", "silence = \"5\"", &["silence", "not a length of time"]),
        ("silence = \"5m\"", "frame_bytes = 5", &["listener.limits.frame_bytes", "not for SSH"]),
    ];
    for (before, after, expected) in table {
        assert!(with_ssh().contains(before), "the example has no `{before}`");
        let told = problems_of(&with_ssh().replacen(before, after, 1));
        for words in *expected {
            assert!(told.contains(words), "`{before}` -> `{after}`: no `{words}` in:\n{told}");
        }
        assert!(told.contains("\n  help: "), "no remedy in:\n{told}");
    }
}

#[test]
fn a_host_that_nothing_pins_is_refused() {
    let text = with_ssh();
    let line = text.lines().find(|line| line.starts_with("host_keys")).unwrap();
    let told = problems_of(&text.replace(line, ""));
    assert!(told.contains("`target.host_keys`") && told.contains("ssh-keyscan -p 22 10.0.0.5"), "{told}");
}

#[test]
fn what_is_for_ssh_is_not_for_databases() {
    for (key, text) in [
        ("target.known_hosts", example().replacen("sslmode =", "known_hosts = \"x\"\nsslmode =", 1)),
        (
            "listener.host_key",
            example().replacen("target = \"shop\"", "target = \"shop\"\nhost_key = \"x\"", 1),
        ),
    ] {
        let told = problems_of(&text);
        assert!(told.contains(key) && told.contains("for SSH, not for databases"), "{told}");
    }
    let login = "\n[[ssh_login.key]]\npublic_key = \"x\"\nissuer = \"i\"\nuser = \"u\"\nkind = \"agent\"\n";
    let told = problems_of(&(example() + login));
    assert!(told.contains("`ssh_login`") && told.contains("no SSH target"), "{told}");
}

#[test]
fn every_problem_is_told_at_once() {
    let text = example().replacen("ipv6", "ipv9", 1).replacen("target = \"shop\"", "target = \"x\"", 1);
    let told = problems_of(&text);
    assert!(told.contains("ipv9") && told.contains("`listener.target`"), "{told}");
}

#[test]
fn two_targets_of_one_name_are_refused() {
    let second = "\n[[target]]\nname = \"shop\"\nprotocol = \"postgres\"\nhost = \"b\"\ncredential = { username = \"u\", no_secret = true }\n";
    let told = problems_of(&(example() + second));
    assert!(told.contains("two targets are called `shop`"), "{told}");
}

#[test]
fn client_certificates_must_be_able_to_pass() {
    let section = "\n[client_certificates]\ntrust_domain = \"example.org\"\n[[client_certificates.rule]]\nkind = \"agent\"\n";
    let told = problems_of(&(example() + section));
    assert!(told.contains("`client_certificates.rule`") && told.contains("`any = true`"), "{told}");
    let told = problems_of(&(example() + section + "any = true\n"));
    assert!(
        told.contains("no client certificate could be accepted") && told.contains("`client_ca`"),
        "{told}"
    );
}

/// A name that one authority gave is not the same identity as the same name of another.
#[test]
fn one_mapping_of_certificates_has_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let ca = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (first, second, same) = (ca("a", "authority a"), ca("b", "authority b"), ca("c", "authority a"));
    let told = |paths: [&str; 2]| {
        let listener = |ca: &str| {
            format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\ntarget = \"shop\"\n\
                 tls = {{ cert = \"x.crt\", key = \"x.key\", client_ca = \"{ca}\" }}\n"
            )
        };
        let section = "\n[client_certificates]\ntrust_domain = \"example.org\"\n[[client_certificates.rule]]\nkind = \"agent\"\nany = true\n";
        problems_of(&(example() + section + &paths.map(listener).concat()))
    };
    assert!(told([&first, &second]).contains("names another `client_ca`"), "{}", told([&first, &second]));
    assert!(!told([&first, &same]).contains("names another `client_ca`"));
}
