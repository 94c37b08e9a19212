//! Settings that change what a statement does though its text stays the same: part of what an approval is bound to.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_core::operation::{Binding, Operation};

use super::{Meaning, Session};
use crate::analysis::{SettingKind, SettingScope, Statement};
use crate::codec::backend::TransactionStatus;
use crate::operation::COMPUTED;

/// Settings whose values the server reports; it is believed, and they always count.
const REPORTED: [&str; 3] = ["datestyle", "intervalstyle", "timezone"];

/// Settings that change nothing a reviewer has to know of, or, as for names, what is bound in another way.
const HARMLESS: [&str; 11] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
];

/// Settings by which the server reads constants and operators when it analyses a text, so that what is prepared or bound keeps the
/// meaning of then.
const READ_BY: [&str; 9] = [
    "array_nulls",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmlbinary",
    "xmloption",
];

/// What the value of a setting begins with that is not known.
pub(crate) const UNKNOWN: &str = "unknown since change";

/// Those of the settings that the server reports which count.
pub(super) fn reported(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let lower = all.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    lower.filter(|(name, _)| REPORTED.contains(&name.as_str())).collect()
}

/// Whether an operation changes a setting that counts.
pub(super) fn changes(operation: &Operation) -> bool {
    changed(operation).next().is_some()
}

/// The settings that an operation changes.
fn changed(operation: &Operation) -> impl Iterator<Item = &str> {
    let set = operation.accesses.iter().filter(|access| access.action.as_str() == "set");
    set.map(|access| access.resource.name()).filter(|name| !HARMLESS.contains(name))
}

impl Session {
    /// Settings that change what statements do, as far as they were changed.
    pub(crate) const fn settings(&self) -> &Arc<BTreeMap<String, String>> {
        &self.settings
    }

    /// The search path, if it was told.
    pub(crate) fn search_path(&self) -> Option<Arc<str>> {
        self.catalog.search_path()
    }

    /// The server reported a setting.
    pub(super) fn setting_reported(&mut self, name: &str, value: &str) {
        let name = name.to_ascii_lowercase();
        if REPORTED.contains(&name.as_str()) && self.settings.get(&name).is_none_or(|old| old != value) {
            Arc::make_mut(&mut self.settings).insert(name.clone(), value.to_owned());
            self.setting_changed(&name);
        }
    }

    /// What is forwarded changes settings. Whether it will, or its transaction undoes it, is not known: what is approved from here
    /// on holds for this session alone.
    pub(super) fn settings_change(&mut self, operations: &[Operation]) {
        for name in operations.iter().flat_map(changed) {
            let unknown = self.never_twice();
            Arc::make_mut(&mut self.settings).insert(name.to_owned(), unknown);
            self.setting_changed(name);
            if READ_BY.contains(&name) || name == COMPUTED {
                (self.rereads_at_sync, self.rereads_at_end) = (true, true);
            }
        }
    }

    /// A transaction, or part of one, has ended: what it changed is set back, which the server tells later.
    pub(super) fn settings_set_back(&mut self) {
        if self.rereads_at_end {
            for name in REPORTED {
                let unknown = self.never_twice();
                Arc::make_mut(&mut self.settings).insert(name.to_owned(), unknown);
            }
            self.rereads_at_sync = true;
            self.catalog.forget_names();
        }
    }

    /// The server answered a Sync or a simple query: it has told those of the settings that it reports. What was prepared since they
    /// changed, or in a transaction whose end sets them back, is analysed anew before it runs.
    pub(super) fn settings_settle(&mut self) {
        let ended = self.status == TransactionStatus::Idle && std::mem::take(&mut self.rereads_at_end);
        if !std::mem::take(&mut self.rereads_at_sync) && !ended {
            return;
        }
        Arc::make_mut(&mut self.settings).extend(reported(&self.reported));
        self.catalog.forget_names();
    }

    /// What followed from a setting before holds no longer. What was prepared under another way to read text is analysed anew before it
    /// is run.
    fn setting_changed(&mut self, name: &str) {
        if READ_BY.contains(&name) || name == COMPUTED {
            self.catalog.forget_names();
        } else {
            self.catalog.renew();
        }
    }

    /// The settings by which texts are read now, as part of what they mean.
    pub(super) fn read_by(&self) -> Meaning {
        let counts = |name: &str| READ_BY.contains(&name);
        let settings = self.settings.iter().filter(|(name, _)| counts(name));
        settings.map(|(name, value)| (format!("read by {name}").into(), value.clone())).collect()
    }

    /// A statement that stands alone, outside any transaction, took effect: now the value is known.
    pub(super) fn setting_took_effect(&mut self, statement: &Statement) {
        let [change] = statement.settings.as_slice() else { return };
        if !matches!(&*statement.kind, "set" | "reset" | "discard") || change.scope != SettingScope::Session {
            return;
        }
        let counts =
            |name: &&String| !HARMLESS.contains(&name.as_str()) && !REPORTED.contains(&name.as_str());
        match (change.kind, change.name.as_ref().filter(counts), &change.value) {
            (SettingKind::Set, Some(name), Some(value)) => {
                Arc::make_mut(&mut self.settings).insert(name.clone(), value.clone());
                self.setting_changed(name);
            }
            (SettingKind::Default | SettingKind::Reset, Some(name), _) => {
                Arc::make_mut(&mut self.settings).remove(name);
                self.setting_changed(name);
            }
            (SettingKind::ResetAll, ..) => {
                Arc::make_mut(&mut self.settings).retain(|name, _| REPORTED.contains(&name.as_str()));
                self.catalog.forget_names();
            }
            _ => {}
        }
    }

    /// What no approval was given for yet, nor will be elsewhere.
    pub(super) fn unknown_settings(&mut self) -> Binding {
        let unknown = self.never_twice();
        Binding::new(vec![("settings".into(), unknown)])
    }

    fn never_twice(&mut self) -> String {
        self.settings_changed += 1;
        format!("{UNKNOWN} {} of session {}", self.settings_changed, self.guard.info().id)
    }
}
