//! What a session keeps under names, with the bytes it takes.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_core::error::{Denial, DenialCode};

use super::{MAX_KEPT_BYTES, Portal};
use crate::statement::Prepared;

/// What takes memory for as long as it is kept.
pub(super) trait Weighs {
    /// About how many bytes.
    fn weight(&self) -> usize;
}

impl Weighs for Prepared {
    fn weight(&self) -> usize {
        self.text.weight() + size_of_val(&self.types[..])
    }
}

impl Weighs for Portal {
    fn weight(&self) -> usize {
        let values = self.bind.iter().flat_map(|bind| &bind.parameters).flatten();
        self.prepared.weight() + values.map(|value| value.len()).sum::<usize>()
    }
}

/// Things by their names.
#[derive(Debug)]
pub(super) struct Kept<T> {
    /// Apart from the others, because most clients use it for every statement.
    unnamed: Option<Arc<T>>,
    /// Made when there is the first of them.
    named: Option<HashMap<String, Arc<T>>>,
    bytes: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { unnamed: None, named: None, bytes: 0 }
    }
}

impl<T: Weighs> Kept<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<T>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.as_ref()?.get(name) }
    }

    fn len(&self) -> usize {
        usize::from(self.unnamed.is_some()) + self.named.as_ref().map_or(0, HashMap::len)
    }

    /// Keeps it under a name instead of what had that name.
    pub(super) fn insert(&mut self, name: String, item: Arc<T>) {
        self.bytes = self.bytes.saturating_add(weight(&name, &*item));
        let replaced = if name.is_empty() {
            self.unnamed.replace(item).map(|old| weight("", &*old))
        } else {
            let length = name.len();
            let old = self.named.get_or_insert_default().insert(name, item);
            old.map(|old| weight("", &*old) + length)
        };
        self.bytes = self.bytes.saturating_sub(replaced.unwrap_or(0));
    }

    pub(super) fn remove(&mut self, name: &str) {
        let item = if name.is_empty() {
            self.unnamed.take()
        } else {
            self.named.as_mut().and_then(|named| named.remove(name))
        };
        if let Some(item) = item {
            self.bytes = self.bytes.saturating_sub(weight(name, &*item));
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.unnamed.take_if(|item| !keep(item));
        if let Some(named) = &mut self.named {
            named.retain(|_, item| keep(item));
        }
        let unnamed = self.unnamed.iter().map(|item| weight("", &**item));
        let named = self.named.iter().flatten().map(|(name, item)| weight(name, &**item));
        self.bytes = unnamed.chain(named).sum();
    }

    /// Whether something of `bytes` can be kept under a name too, besides what is `coming`. What comes alone is always kept: its size is
    /// limited by its message.
    ///
    /// # Errors
    /// There is too much already, or it would be too many.
    pub(super) fn room(&self, name: &str, bytes: usize, coming: &Self, what: &Kind) -> Result<(), Denial> {
        let known = self.get(name);
        let replaced = known.map_or(0, |item| weight(name, &**item));
        let others = self.bytes.saturating_sub(replaced).saturating_add(coming.bytes);
        if self.len() + coming.len() >= what.most && known.is_none() {
            return Err(full(format!("a session may keep at most {} {}", what.most, what.name)));
        }
        if others > 0 && others.saturating_add(bytes) > MAX_KEPT_BYTES {
            return Err(full(format!(
                "the {} of a session may take at most {MAX_KEPT_BYTES} bytes",
                what.name
            )));
        }
        Ok(())
    }
}

/// What is kept, and how many of it.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) most: usize,
}

fn weight<T: Weighs>(name: &str, item: &T) -> usize {
    // The entry in the map, and the counted box behind it.
    const ENTRY: usize = 128;
    ENTRY + name.len() + item.weight()
}

fn full(message: String) -> Denial {
    Denial::new(DenialCode::LimitExceeded, message).with_hint("close some first")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(usize);

    impl Weighs for Item {
        fn weight(&self) -> usize {
            self.0
        }
    }

    const KIND: Kind = Kind { name: "items", most: 3 };

    fn room(kept: &Kept<Item>, name: &str, bytes: usize) -> Result<(), String> {
        kept.room(name, bytes, &Kept::default(), &KIND).map_err(|denial| denial.message)
    }

    #[test]
    fn bytes_are_counted_and_given_back() {
        let mut kept = Kept::default();
        kept.insert("a".to_owned(), Arc::new(Item(MAX_KEPT_BYTES / 2)));
        assert!(room(&kept, "b", MAX_KEPT_BYTES / 4).is_ok());
        assert!(room(&kept, "b", MAX_KEPT_BYTES / 2).unwrap_err().contains("bytes"));
        assert!(room(&kept, "a", MAX_KEPT_BYTES).is_ok(), "it takes the place of the other one");
        kept.insert("a".to_owned(), Arc::new(Item(1)));
        assert!(room(&kept, "b", MAX_KEPT_BYTES / 2).is_ok());
        kept.insert("b".to_owned(), Arc::new(Item(MAX_KEPT_BYTES)));
        kept.retain(|item| item.0 == 1);
        assert!(room(&kept, "b", MAX_KEPT_BYTES / 2).is_ok());
        kept.remove("a");
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn the_unnamed_one_counts_as_any_other() {
        let mut kept = Kept::default();
        for size in [5, 7] {
            kept.insert(String::new(), Arc::new(Item(size)));
            kept.insert("a".to_owned(), Arc::new(Item(size)));
        }
        assert_eq!((kept.len(), kept.bytes), (2, weight("", &Item(7)) + weight("a", &Item(7))));
        assert_eq!(kept.get("").map(|item| item.0), Some(7));
        kept.insert("b".to_owned(), Arc::new(Item(1)));
        assert!(room(&kept, "c", 1).unwrap_err().contains("at most 3 items"));
        assert!(room(&kept, "", 1).is_ok());
        kept.retain(|item| item.0 == 1);
        assert_eq!((kept.len(), kept.bytes), (1, weight("b", &Item(1))));
        kept.insert(String::new(), Arc::new(Item(1)));
        kept.remove("");
        kept.remove("b");
        assert_eq!((kept.len(), kept.bytes), (0, 0));
    }

    #[test]
    fn what_is_coming_counts() {
        let (kept, mut coming) = (Kept::default(), Kept::default());
        coming.insert("a".to_owned(), Arc::new(Item(MAX_KEPT_BYTES)));
        assert!(kept.room("b", 1, &coming, &KIND).is_err());
        assert!(Kept::<Item>::default().room("b", MAX_KEPT_BYTES * 2, &kept, &KIND).is_ok(), "alone");
    }

    #[test]
    fn their_number_is_limited() {
        let mut kept = Kept::default();
        ["a", "b", "c"].into_iter().for_each(|name| kept.insert(name.to_owned(), Arc::new(Item(1))));
        assert!(room(&kept, "d", 1).unwrap_err().contains("at most 3 items"));
        assert!(room(&kept, "c", 1).is_ok());
    }
}
