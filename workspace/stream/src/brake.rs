//! When records fail in such numbers that something else is wrong.
//!
//! A rule that was deployed broken, or a schema that changed, makes poison of every record, and without a
//! brake a topic is drained into its dead letters overnight. The *brake* is pulled by too many dead
//! letters in a row, or by too large a share of the last records. From then on nothing of the partition
//! is committed, until an operator releases it; a restart or a new owner changes nothing, because the
//! brake is noted beside the group's offsets.
//!
//! Pure: no clock, no I/O.

use std::collections::VecDeque;
use std::fmt;

/// When the brake is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeLimits {
    /// By so many dead letters in a row; 0 is never.
    pub in_a_row: u32,
    /// By more than so many percent dead letters, once as many records as the window holds have ended; 0
    /// is never.
    pub percent: u32,
    /// Over so many records.
    pub window: usize,
}

/// Why the brake was pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// So many dead letters came one after the other.
    InARow(u32),
    /// So many of so many records became dead letters.
    Share(usize, usize),
}

impl fmt::Display for Pulled {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InARow(count) => write!(out, "{count} dead letters in a row"),
            Self::Share(dead, all) => write!(out, "{dead} of the last {all} records became dead letters"),
        }
    }
}

/// Counts how the records of a pump end.
#[derive(Clone, Debug)]
pub struct Brake {
    limits: BrakeLimits,
    in_a_row: u32,
    recent: VecDeque<bool>,
    dead: usize,
}

impl Brake {
    /// Nothing has ended yet.
    #[must_use]
    pub fn new(limits: BrakeLimits) -> Self {
        Self {
            limits,
            in_a_row: 0,
            recent: VecDeque::new(),
            dead: 0,
        }
    }

    /// Counts a record that has ended. Where it is one dead letter too many, it must not be committed,
    /// and counting begins anew.
    pub fn count(&mut self, is_dead: bool) -> Option<Pulled> {
        self.in_a_row = if is_dead {
            self.in_a_row.saturating_add(1)
        } else {
            0
        };
        if self.limits.percent > 0 {
            self.recent.push_back(is_dead);
            self.dead += usize::from(is_dead);
            if self.recent.len() > self.limits.window {
                self.dead -= usize::from(self.recent.pop_front() == Some(true));
            }
        }
        let pulled = self.judge(is_dead)?;
        self.forget();
        Some(pulled)
    }

    fn judge(&self, is_dead: bool) -> Option<Pulled> {
        let BrakeLimits {
            in_a_row,
            percent,
            window,
        } = self.limits;
        if in_a_row > 0 && self.in_a_row > in_a_row {
            return Some(Pulled::InARow(self.in_a_row));
        }
        let is_full = self.recent.len() >= window.max(1);
        let is_over = self.dead.saturating_mul(100) > self.recent.len().saturating_mul(percent as usize);
        (is_dead && percent > 0 && is_full && is_over).then_some(Pulled::Share(self.dead, self.recent.len()))
    }

    /// What was counted counts no more.
    pub fn forget(&mut self) {
        *self = Self::new(self.limits);
    }
}

/// What a commit notes beside its offsets: the transactional id that it was made with, so that a
/// successor can end what its owner leaves open, and the brake, where it is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// Empty where there are no transactions.
    pub transactional_id: &'a str,
    /// The name of the brake.
    pub brake: Option<&'a str>,
}

/// Not in a transactional id: those are made of names without spaces.
const SEPARATOR: &str = " brake ";

impl<'a> Note<'a> {
    /// Reads a note; what nobody of us wrote has neither.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        match text.split_once(SEPARATOR) {
            Some((transactional_id, brake)) => Self {
                transactional_id,
                brake: Some(brake),
            },
            None => Self {
                transactional_id: text,
                brake: None,
            },
        }
    }
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.transactional_id)?;
        match self.brake {
            Some(brake) => write!(out, "{SEPARATOR}{brake}"),
            None => Ok(()),
        }
    }
}

/// The name of a brake that is pulled now: when, and something that no other one has.
#[must_use]
pub fn brake_name(now_ms: i64, random: u32) -> String {
    format!("{now_ms}-{random:08x}")
}

/// When a brake of this name was pulled, in milliseconds since the epoch.
#[must_use]
pub fn pulled_at_ms(name: &str) -> Option<i64> {
    name.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brake(in_a_row: u32, percent: u32, window: usize) -> Brake {
        Brake::new(BrakeLimits {
            in_a_row,
            percent,
            window,
        })
    }

    fn first_pulled(brake: &mut Brake, endings: impl IntoIterator<Item = bool>) -> Option<(usize, Pulled)> {
        let mut counted = endings.into_iter().enumerate();
        counted.find_map(|(index, is_dead)| Some((index, brake.count(is_dead)?)))
    }

    #[test]
    fn one_more_in_a_row_than_allowed_pulls_it_and_one_good_record_begins_anew() {
        let mut brake = brake(3, 0, 0);
        assert_eq!(
            first_pulled(&mut brake, [true, true, true, false, true, true, true]),
            None
        );
        assert_eq!(first_pulled(&mut brake, [true]), Some((0, Pulled::InARow(4))));
        assert_eq!(first_pulled(&mut brake, [true; 3]), None, "it counts anew");
    }

    #[test]
    fn a_share_of_a_full_window_pulls_it() {
        let mut brake = brake(0, 50, 10);
        let every_second = (0..100).map(|index| index % 2 == 0);
        assert_eq!(first_pulled(&mut brake, every_second), None, "half is allowed");
        let (index, pulled) = first_pulled(&mut brake, [true; 10]).expect("more than half");
        assert!(index < 3, "{index}");
        assert_eq!(pulled, Pulled::Share(6, 10));
        assert_eq!(first_pulled(&mut brake, [true; 9]), None, "no window is full yet");
        assert_eq!(first_pulled(&mut brake, [true]), Some((0, Pulled::Share(10, 10))));
    }

    #[test]
    fn without_limits_it_is_never_pulled() {
        assert_eq!(first_pulled(&mut brake(0, 0, 10), [true; 10_000]), None);
    }

    #[test]
    fn a_note_keeps_what_was_noted() {
        let name = brake_name(1_700_000_000_000, 7);
        assert_eq!(pulled_at_ms(&name), Some(1_700_000_000_000));
        for id in ["", "orderflow-fraud-host-1-0"] {
            for brake in [None, Some(name.as_str())] {
                let note = Note {
                    transactional_id: id,
                    brake,
                };
                assert_eq!(Note::parse(&note.to_string()), note);
            }
        }
    }
}
