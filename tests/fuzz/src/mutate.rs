//! Inputs from inputs.

use crate::random::Random;

/// Bytes that grammars tend to mean something by.
const SPECIAL: &[u8] = b"\0\n\r\t\x0b =:,;#\\\"'[]{}/-+~%.0\x7f\x80\xc3\xff";

#[derive(Debug)]
pub(crate) struct Mutator<'a> {
    tokens: &'a [&'a str],
    size_max: usize,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(tokens: &'a [&'a str], size_max: usize) -> Mutator<'a> {
        Mutator { tokens, size_max }
    }

    /// A file of the corpus with one to eight changes.
    pub(crate) fn mutate(&self, corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut input = random.of(corpus).cloned().unwrap_or_default();
        for _ in 0..=random.below(8) {
            self.change(&mut input, corpus, random);
        }
        input.truncate(self.size_max);
        input
    }

    fn change(&self, input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
        let at = random.below(input.len() + 1);
        let end = at + random.below((input.len() - at).min(64) + 1);
        match random.below(9) {
            0 => drop(input.splice(at..at, self.token(random).bytes())),
            1 => drop(input.splice(at..end, self.token(random).bytes())),
            2 => drop(input.drain(at..end)),
            3 => {
                let copy = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                drop(input.splice(to..to, copy));
            }
            4 => drop(input.splice(at..at, random.of(SPECIAL).copied())),
            5 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = u8::try_from(random.below(256)).unwrap_or(0);
                }
            }
            6 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            7 => {
                // The end of another one.
                let other = random.of(corpus).cloned().unwrap_or_default();
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let many = 1 << random.below(12);
                let byte = random.of(SPECIAL).copied().unwrap_or(b'x');
                drop(input.splice(at..at, std::iter::repeat_n(byte, many)));
            }
        }
    }

    fn token(&self, random: &mut Random) -> &'a str {
        random.of(self.tokens).copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_inputs_and_all_stay_small() {
        let corpus = vec![b"[Exec]\nBoot=yes\n".to_vec(), Vec::new()];
        let mutator = Mutator::new(&["--bind="], 1000);
        let all = |seed| {
            let mut random = Random::new(seed);
            (0..2000).map(|_| mutator.mutate(&corpus, &mut random)).collect::<Vec<_>>()
        };
        let first = all(1);
        assert_eq!(first, all(1));
        assert_ne!(first, all(2));
        assert!(first.iter().all(|input| input.len() <= 1000));
        let different: std::collections::HashSet<_> = first.iter().collect();
        assert!(different.len() > 1000, "{}", different.len());
    }
}
