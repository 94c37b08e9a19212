//! An Ansible playbook through the gateway, under the policy that the documentation gives for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gateway_core::recording::Record;
use testkit::{Finished, client_options, run};

use crate::documented;
use crate::support::{Gateway, gateway, keys, server};

const PLAYBOOK: &str = r#"
- hosts: all
  gather_facts: true
  gather_subset: [min]
  tasks:
    - name: a command
      command: echo {{ inventory_hostname }} {{ ansible_system }}
      register: said
      changed_when: false
    - name: a folder
      file: {path: "{{ there }}/conf", state: directory, mode: "0750"}
    - name: a copy
      copy: {src: static.conf, dest: "{{ there }}/conf/static.conf", mode: "0640"}
    - name: a template
      template: {src: app.conf.j2, dest: "{{ there }}/conf/app.conf"}
    - name: a line
      lineinfile: {path: "{{ there }}/conf/app.conf", regexp: "^level=", line: "level=debug"}
    - name: back again
      fetch: {src: "{{ there }}/conf/app.conf", dest: "{{ here }}/fetched", flat: true}
    - name: a file that is to be gone
      file: {path: "{{ there }}/old", state: absent}
"#;

/// Longer than the playbook takes on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(240);

struct Play {
    gateway: Gateway,
    /// What the playbook is about.
    there: tempfile::TempDir,
    /// Where Ansible puts its own files.
    remote: tempfile::TempDir,
}

impl Play {
    fn new(policy: impl Fn(&Path, &Path) -> String) -> Self {
        let folder = || tempfile::tempdir_in(fs::canonicalize(server().home()).unwrap()).unwrap();
        let (there, remote) = (folder(), folder());
        fs::write(there.path().join("old"), "old\n").unwrap();
        let gateway = gateway(&policy(there.path(), remote.path()));
        let here = gateway.folder.path();
        fs::write(here.join("play.yml"), PLAYBOOK).unwrap();
        fs::write(here.join("static.conf"), "static=1\n").unwrap();
        fs::write(here.join("app.conf.j2"), "host={{ inventory_hostname }}\nlevel=info\n").unwrap();
        Self { gateway, there, remote }
    }

    /// Writes the documented settings, for this play's folders.
    fn configure(&self, settings: &str) {
        let settings = settings.replace("/srv/ansible", path(self.remote.path()));
        fs::write(self.gateway.path("ansible.cfg"), settings).unwrap();
    }

    fn run(&self) -> Finished {
        let here = self.gateway.folder.path();
        let mut play = Command::new("ansible-playbook");
        play.current_dir(here).args(["-i", "web1,", "play.yml"]);
        for (name, value) in [
            ("ansible_host", "127.0.0.1"),
            ("ansible_user", "agent-7"),
            ("ansible_python_interpreter", "/usr/bin/python3"),
            ("there", path(self.there.path())),
            ("here", path(here)),
        ] {
            play.arg("-e").arg(format!("{name}={value}"));
        }
        let options = client_options(keys().agent.private(), self.gateway.address.port()).join(" ");
        // As Ansible does by itself: one connection for all tasks; it ends with the gateway.
        let options = format!("{options} -o ControlMaster=auto -o ControlPersist=60s");
        play.env("HOME", here).env("ANSIBLE_LOCAL_TEMP", here.join("tmp"));
        play.env("ANSIBLE_SSH_CONTROL_PATH_DIR", here).env("ANSIBLE_SSH_CONTROL_PATH", "%(directory)s/c");
        play.env("ANSIBLE_CONFIG", here.join("ansible.cfg"));
        play.env("ANSIBLE_NOCOLOR", "1").env("ANSIBLE_HOST_KEY_CHECKING", "False");
        run(play.env("ANSIBLE_SSH_ARGS", options), "", DEADLINE).unwrap()
    }

    /// What was asked for, if it begins like this.
    fn presented(&self, start: &str) -> impl Iterator<Item = String> {
        let records = self.gateway.records().into_iter();
        let operations = records.flat_map(|record| match record {
            Record::Presented { operations, .. } => operations,
            _ => Vec::new(),
        });
        operations.map(|o| o.statement.to_string()).filter(move |statement| statement.starts_with(start))
    }

    fn check(&self, done: &Finished) {
        assert!(done.status.success(), "{}\n{}", done.stdout, done.stderr);
        assert!(done.stdout.contains("ok=8 "), "{}", done.stdout);
        let conf = self.there.path().join("conf");
        assert_eq!(fs::read_to_string(conf.join("static.conf")).unwrap(), "static=1\n");
        let app = "host=web1\nlevel=debug\n";
        assert_eq!(fs::read_to_string(conf.join("app.conf")).unwrap(), app);
        assert_eq!(fs::read_to_string(self.gateway.path("fetched")).unwrap(), app);
        assert!(!self.there.path().join("old").exists());
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The documented policy for this play's folders.
fn documented(there: &Path, remote: &Path) -> String {
    documented::policy("ansible-connect", &[("/srv/inbox", path(there)), ("/srv/ansible", path(remote))])
}

/// Runs it under the documented policy and settings, but for this one; tells how many modules were uploaded.
fn uploads(pipelining: bool) -> usize {
    let play = Play::new(documented);
    let settings = documented::block("# ansible.cfg");
    assert!(settings.contains("pipelining = true"));
    play.configure(&settings.replace("pipelining = true", &format!("pipelining = {pipelining}")));
    let done = play.run();
    play.check(&done);
    play.presented("open ").filter(|statement| statement.contains("AnsiballZ_")).count()
}

#[test]
fn a_playbook_runs_under_the_documented_policy_and_settings() {
    assert_eq!(uploads(true), 0);
}

#[test]
fn a_playbook_runs_without_pipelining_too() {
    assert_ne!(uploads(false), 0);
}

#[test]
fn a_playbook_needs_the_permit_for_what_is_not_certain() {
    let play = Play::new(|there, remote| {
        documented(there, remote).replace("Action::\"exec_unresolved\"", "Action::\"shell\"")
    });
    play.configure(&documented::block("# ansible.cfg"));
    let done = play.run();
    assert!(!done.status.success() && done.stdout.contains("denied: "), "{}{}", done.stdout, done.stderr);
    assert!(play.there.path().join("old").exists() && !play.there.path().join("conf").exists());
}
