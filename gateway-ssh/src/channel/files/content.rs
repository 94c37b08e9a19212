//! Content of open files on its way: counted, hashed, and bound to the size that was judged.

use bytes::Bytes;
use gateway_core::error::Denial;
use gateway_core::pipeline::{Input, Results, Tally};

/// What content is called in recordings.
const READ: &str = "ssh/read";
pub(crate) const WRITTEN: &str = "ssh/written";

/// Whether content passes from the beginning on, each piece behind the last: only then is its hash the file's.
#[derive(Debug, Default)]
struct Order {
    next: u64,
    broken: bool,
}

impl Order {
    const fn take(&mut self, offset: u64, length: usize) {
        self.broken |= offset != self.next;
        self.next = offset.saturating_add(length as u64);
    }

    const fn words(&self) -> &'static str {
        if self.broken { " out of order" } else { "" }
    }
}

/// What passed of one open file.
#[derive(Debug)]
pub(super) struct FileContent {
    read: Tally,
    read_order: Order,
    written: u64,
    written_order: Order,
    input: Input,
    /// The size it was judged by; there is nothing behind it to read.
    size: Option<u64>,
}

impl FileContent {
    pub(super) fn new(results: &Results, size: Option<u64>) -> Self {
        Self {
            read: Tally::default(),
            read_order: Order::default(),
            written: 0,
            written_order: Order::default(),
            input: results.input(WRITTEN),
            size,
        }
    }

    /// How much may be read from here on, if that is bound.
    pub(super) fn left(&self, offset: u64) -> u64 {
        self.size.map_or(u64::MAX, |size| size.saturating_sub(offset))
    }

    /// As much of what the server gave as the client may have.
    pub(super) fn within(&self, offset: u64, data: &Bytes) -> Bytes {
        let left = usize::try_from(self.left(offset)).unwrap_or(usize::MAX);
        data.slice(..data.len().min(left))
    }

    /// Notes what the client gets.
    pub(super) fn reads(&mut self, offset: u64, data: &[u8]) {
        self.read.add(data);
        self.read_order.take(offset, data.len());
    }

    /// Notes what the client writes; what it wrote itself it may read again.
    pub(super) fn writes(&mut self, offset: u64, data: &[u8]) -> Result<(), Denial> {
        self.input.take(data)?;
        self.written += data.len() as u64;
        self.written_order.take(offset, data.len());
        let end = offset.saturating_add(data.len() as u64);
        self.size = self.size.map(|size| size.max(end));
        Ok(())
    }

    /// Closes the record of the file.
    pub(super) fn complete(self, results: Results, how: &str) -> Result<(), Denial> {
        if self.read.bytes() > 0 {
            results.digested(READ, &self.read)?;
        }
        self.input.finish()?;
        let (read, written) = (self.read.bytes(), self.written);
        let (read_order, written_order) = (self.read_order.words(), self.written_order.words());
        results.complete(&format!("{how}; {read} bytes read{read_order}, {written} written{written_order}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_from_the_beginning_without_gaps_is_in_order() {
        let mut order = Order::default();
        order.take(0, 10);
        order.take(10, 5);
        assert_eq!(order.words(), "");
        order.take(14, 1);
        assert_eq!(order.words(), " out of order");
        let mut late = Order::default();
        late.take(1, 1);
        assert!(late.broken);
    }
}
