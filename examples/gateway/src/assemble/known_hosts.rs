//! Host keys out of a file like OpenSSH's `known_hosts` (sshd(8), section SSH_KNOWN_HOSTS FILE FORMAT).

use std::path::Path;

use gateway_core::identity::SshPublicKey;

use crate::config::Problem;

/// What a file says about one host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    pub(super) keys: Vec<SshPublicKey>,
    pub(super) authorities: Vec<SshPublicKey>,
}

/// The keys and authorities of a host. Revoked keys are left out.
pub(super) fn read(path: &Path, text: &str, host: &str, port: u16) -> Result<Hosts, Problem> {
    let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    let (mut hosts, mut revoked, mut hashed) = (Hosts::default(), Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || {
            let message = format!("line {} is not `names algorithm key`", index + 1);
            Problem::whole(path, message, "write the lines that `ssh-keyscan` prints, or remove this one")
        };
        let (marker, rest) = match line.split_once(char::is_whitespace) {
            Some((marker, rest)) if marker.starts_with('@') => (marker, rest.trim_start()),
            _ => ("", line),
        };
        let (names, key) = rest.split_once(char::is_whitespace).ok_or_else(wrong)?;
        hashed |= names.starts_with('|');
        if !names_host(names, &name) {
            continue;
        }
        let key = SshPublicKey::from_line(key).map_err(|_| wrong())?;
        match marker {
            "" => hosts.keys.push(key),
            "@cert-authority" => hosts.authorities.push(key),
            "@revoked" => revoked.push(key),
            _ => return Err(wrong()),
        }
    }
    hosts.keys.retain(|key| !revoked.contains(key));
    hosts.authorities.retain(|key| !revoked.contains(key));
    if hosts.keys.is_empty() && hosts.authorities.is_empty() {
        return Err(absent(path, &name, hashed));
    }
    Ok(hosts)
}

fn absent(path: &Path, name: &str, hashed: bool) -> Problem {
    let help = if hashed {
        "hashed names are not read here; write the line with the name, as `ssh-keyscan` prints it without `-H`"
    } else {
        "add the line that `ssh-keyscan` prints, after comparing it with the key on the host itself"
    };
    Problem::whole(path, format!("there is no key for `{name}`"), help)
}

/// Whether a list of patterns means the name: one matches, and none that begins with `!` does.
fn names_host(patterns: &str, name: &str) -> bool {
    let mut named = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if matches(not, name) => return false,
            Some(_) => {}
            None => named |= matches(pattern, name),
        }
    }
    named
}

/// `*` stands for any characters, `?` for one; letters match in both cases, as host names do.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(x) if *x == b'?' || x.eq_ignore_ascii_case(c) => (p, n) = (p + 1, n + 1),
            // Back to the last star, which takes one character more.
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJcmwQxj5Vm0E4d8Y9iTnSMcUzyhbD5xEhFvM9nJ7y0f";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKcmwQxj5Vm0E4d8Y9iTnSMcUzyhbD5xEhFvM9nJ7y0f";

    fn of(text: &str, host: &str, port: u16) -> Result<(usize, usize), String> {
        let hosts = read(Path::new("known_hosts"), text, host, port).map_err(|e| e.to_string())?;
        Ok((hosts.keys.len(), hosts.authorities.len()))
    }

    #[test]
    fn keys_are_those_of_the_host_and_port() {
        let text = format!("# hosts\n\nweb1,10.0.0.5 {A} me@here\n[web1]:2222 {B}\nweb2 {B}\n");
        assert_eq!(of(&text, "web1", 22), Ok((1, 0)));
        assert_eq!(of(&text, "WEB1", 2222), Ok((1, 0)));
        assert_eq!(of(&text, "10.0.0.5", 22), Ok((1, 0)));
        assert!(of(&text, "web3", 22).unwrap_err().contains("no key for `web3`"));
        assert!(of(&text, "web2", 2222).unwrap_err().contains("`[web2]:2222`"));
    }

    #[test]
    fn authorities_are_named_by_patterns_and_revoked_keys_do_not_count() {
        let text = format!("@cert-authority *.example.com,!bad.example.com {A}\n@revoked * {B}\nweb1 {B}\n");
        assert_eq!(of(&text, "a.example.com", 22), Ok((0, 1)));
        assert!(of(&text, "bad.example.com", 22).is_err());
        assert!(of(&text, "web1", 22).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(of("web1\n", "web1", 22).unwrap_err().contains("line 1 is not"));
        assert!(of("web1 ssh-ed25519 !!\n", "web1", 22).unwrap_err().contains("line 1 is not"));
        assert!(of(&format!("@nonsense web1 {A}"), "web1", 22).unwrap_err().contains("line 1 is not"));
        assert!(of(&format!("|1|a=|b= {A}"), "web1", 22).unwrap_err().contains("hashed names"));
    }

    #[test]
    fn patterns_are_openssh_s() {
        for (pattern, name, yes) in [
            ("*", "a", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("?b", "ab", true),
            ("?b", "b", false),
            ("", "a", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
        }
    }
}
