//! New inputs from old ones.

use crate::random::Random;

/// Longest input, in bytes: longer ones are a matter for limits, which have tests of their own.
pub const MAX_INPUT: usize = 8 * 1024;

/// Changes at once, at most.
const MAX_CHANGES: usize = 8;

const LENGTHS: [u32; 10] = [0, 1, 3, 4, 5, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// A changed copy of `input`; `others` may lend parts, `words` whole words of the format.
pub fn mutate(random: &mut Random, input: &[u8], others: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=random.below(MAX_CHANGES) {
        change(random, &mut out, others, words);
    }
    out.truncate(MAX_INPUT);
    out
}

fn change(random: &mut Random, out: &mut Vec<u8>, others: &[Vec<u8>], words: &[&[u8]]) {
    let at = random.below(out.len() + 1);
    let end = (at + 1 + random.below(16)).min(out.len());
    match random.below(10) {
        0 => flip(random, out, at),
        1 => drop(out.drain(at..end.max(at))),
        2 => {
            let part = out[at..end.max(at)].to_vec();
            out.splice(at..at, part);
        }
        3 => out.insert(at, random.next() as u8),
        4 => overwrite(out, at, &random.pick(&LENGTHS).copied().unwrap_or(0).to_be_bytes()),
        5 => overwrite(out, at, &random.next().to_be_bytes()[..1 + random.below(4)]),
        6 => out.truncate(at),
        7 => {
            let other = random.pick(others).cloned().unwrap_or_default();
            let from = random.below(other.len() + 1);
            out.truncate(at);
            out.extend_from_slice(&other[from..]);
        }
        _ => {
            let word = random.pick(words).copied().unwrap_or(b"\0");
            out.splice(at..at, word.iter().copied());
        }
    }
}

fn flip(random: &mut Random, out: &mut [u8], at: usize) {
    if let Some(byte) = out.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn overwrite(out: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in out.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
