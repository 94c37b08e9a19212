//! What lines have in common: the folder they run in and the variables exported before. Pure.

use crate::shell::simple;

use super::builtin::{MAX_EXPORT_BYTES, MAX_EXPORTS};

/// A shell's status for what could not be started where it should: the folder is gone.
const NO_FOLDER_STATUS: u32 = 125;

/// Where the next line runs, and with what.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// As the host resolves it; `None`: where the account starts.
    pub(super) folder: Option<String>,
    pub(super) before: Option<String>,
    /// Where the account starts, once it was asked for.
    pub(super) start: Option<String>,
    exports: Vec<(String, String)>,
}

impl Place {
    pub(super) fn go(&mut self, folder: Option<String>) {
        self.before = std::mem::replace(&mut self.folder, folder).or_else(|| self.start.clone());
    }

    pub(super) fn exports(&self) -> &[(String, String)] {
        &self.exports
    }

    /// Whether one more variable fits.
    pub(super) fn has_room(&self, name: &str, value: &str) -> bool {
        let others = self.exports.iter().filter(|(known, _)| known != name);
        let (count, bytes) =
            others.fold((0, 0), |(count, bytes), (n, v)| (count + 1, bytes + n.len() + v.len()));
        count < MAX_EXPORTS && bytes + name.len() + value.len() <= MAX_EXPORT_BYTES
    }

    pub(super) fn export(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.exports.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.exports.retain(|(known, _)| known != name);
    }

    /// What is sent in front of a line. Every word of it is quoted; a folder that is gone ends the whole before the line begins.
    ///
    /// Lines of its own, so that nothing in the line can bind to it.
    pub(super) fn prelude(&self) -> Option<String> {
        let mut prelude = String::new();
        for (name, value) in &self.exports {
            let quoted = simple::canonical(std::slice::from_ref(value))?;
            prelude.push_str(&format!("export {name}={quoted}\n"));
        }
        if let Some(folder) = &self.folder {
            prelude.push_str(&format!("{} || exit {NO_FOLDER_STATUS}\n", enter(folder)?));
        }
        Some(prelude)
    }
}

/// The command that goes to a folder. `None` if its name cannot be quoted so that every shell reads it alike.
pub(super) fn enter(folder: &str) -> Option<String> {
    let quoted = simple::canonical(&[folder.to_owned()])?;
    Some(format!("cd -P -- {quoted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prelude_is_quoted_and_ends_a_line_whose_folder_is_gone() {
        let mut place = Place::default();
        assert_eq!(place.prelude().unwrap(), "");
        place.export("A", "x'; rm -rf /; '");
        place.export("B", "");
        place.export("B", "$(id)");
        place.go(Some("/srv/it's".to_owned()));
        let expected =
            "export A='x'\\''; rm -rf /; '\\'\nexport B='$(id)'\ncd -P -- '/srv/it'\\''s' || exit 125\n";
        assert_eq!(place.prelude().unwrap(), expected);
        place.unset("A");
        place.unset("B");
        place.go(None);
        assert_eq!((place.prelude().unwrap().as_str(), place.before.as_deref()), ("", Some("/srv/it's")));
    }

    #[test]
    fn what_cannot_be_quoted_is_not_sent() {
        let mut place = Place::default();
        place.go(Some("/srv/é".to_owned()));
        assert_eq!(place.prelude(), None);
        let mut place = Place::default();
        place.export("A", "\r");
        assert_eq!(place.prelude(), None);
    }

    #[test]
    fn variables_have_a_limit() {
        let mut place = Place::default();
        for n in 0..MAX_EXPORTS {
            assert!(place.has_room(&format!("A{n}"), "x"));
            place.export(&format!("A{n}"), "x");
        }
        assert!(!place.has_room("B", "x") && place.has_room("A1", "y"));
        assert!(!place.has_room("A1", &"y".repeat(MAX_EXPORT_BYTES)));
    }
}
