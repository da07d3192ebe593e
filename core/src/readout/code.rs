//! Small numbers of the protocol and what they stand for.
//!
//! Invariant: a number keeps its meaning; one that this version does not know stays what it is.

use crate::format::events::PreviousEnd;
use crate::gaps::GapCause;

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BootEnd {
    /// There was none.
    New,
    /// By a close frame.
    Clean,
    /// Without one: power was cut, or the node was killed.
    Cut,
    /// The manifest was lost, and rebuilt from the segments.
    Rebuilt,
    /// It has not.
    Running,
    /// Power failed, and everything was made durable before.
    LastGasp,
    /// The watchdog ended it.
    Watchdog,
    /// Nobody knows.
    Unknown,
}

impl BootEnd {
    /// The end as it is shown and exported.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Clean => "clean",
            Self::Cut => "cut",
            Self::Rebuilt => "rebuilt",
            Self::Running => "running",
            Self::LastGasp => "last-gasp",
            Self::Watchdog => "watchdog",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::New => 0,
            Self::Clean => 1,
            Self::Cut => 2,
            Self::Rebuilt => 3,
            Self::Running => 4,
            Self::LastGasp => 5,
            Self::Watchdog => 6,
            Self::Unknown => 255,
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::New,
            1 => Self::Clean,
            2 => Self::Cut,
            3 => Self::Rebuilt,
            4 => Self::Running,
            5 => Self::LastGasp,
            6 => Self::Watchdog,
            _ => Self::Unknown,
        }
    }
}

impl From<PreviousEnd> for BootEnd {
    fn from(end: PreviousEnd) -> Self {
        match end {
            PreviousEnd::New => Self::New,
            PreviousEnd::Clean => Self::Clean,
            PreviousEnd::Cut => Self::Cut,
            PreviousEnd::Rebuilt => Self::Rebuilt,
        }
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ErrorCode {
    /// The node does not know this kind of request.
    UnknownRequest,
    /// The request cannot be read.
    Malformed,
    /// A record does not fit the node's buffer.
    TooLarge,
    /// The medium cannot be read.
    Medium,
    /// The store takes no more writes.
    ReadOnly,
    /// Ask again later.
    Busy,
    /// The node is stopping.
    Stopping,
    /// A code that this version does not know.
    Other(u8),
}

impl ErrorCode {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::UnknownRequest => 1,
            Self::Malformed => 2,
            Self::TooLarge => 3,
            Self::Medium => 4,
            Self::ReadOnly => 5,
            Self::Busy => 6,
            Self::Stopping => 7,
            Self::Other(code) => code,
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        match code {
            1 => Self::UnknownRequest,
            2 => Self::Malformed,
            3 => Self::TooLarge,
            4 => Self::Medium,
            5 => Self::ReadOnly,
            6 => Self::Busy,
            7 => Self::Stopping,
            code => Self::Other(code),
        }
    }
}

pub(super) fn gap_cause_code(cause: GapCause) -> u8 {
    match cause {
        GapCause::RamTier => 0,
        GapCause::Torn => 1,
        GapCause::Rot => 2,
        GapCause::Retention => 3,
        GapCause::Overload => 4,
        GapCause::DiskFull => 5,
        GapCause::MediumFailed => 6,
        GapCause::Oversize => 7,
        GapCause::LedgerLost => 8,
    }
}

pub(super) fn gap_cause(code: u8) -> Option<GapCause> {
    Some(match code {
        0 => GapCause::RamTier,
        1 => GapCause::Torn,
        2 => GapCause::Rot,
        3 => GapCause::Retention,
        4 => GapCause::Overload,
        5 => GapCause::DiskFull,
        6 => GapCause::MediumFailed,
        7 => GapCause::Oversize,
        8 => GapCause::LedgerLost,
        _ => return None,
    })
}
