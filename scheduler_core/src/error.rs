//! Everything that can be wrong with what crosses the border, each with a stable code.

use std::fmt;

/// Why a call was refused. Nothing has changed when it is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreError {
    InvalidMessage { detail: String },
    ResyncNeeded { base: u64, current: u64 },
    UnknownSite { site_id: String, by: String },
    UnknownNode { node_id: String, by: String },
    InvalidField { field: String, detail: String },
}

impl CoreError {
    /// The stable code that callers may branch on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidMessage { .. } => "INVALID_MESSAGE",
            Self::ResyncNeeded { .. } => "RESYNC_NEEDED",
            Self::UnknownSite { .. } => "UNKNOWN_SITE",
            Self::UnknownNode { .. } => "UNKNOWN_NODE",
            Self::InvalidField { .. } => "INVALID_FIELD",
        }
    }
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidMessage { detail } => write!(f, "the bytes are no message of this schema: {detail}"),
            Self::ResyncNeeded { base, current } => {
                write!(f, "base_generation ({base}) is not the engine's ({current}); send a delta with reset set")
            }
            Self::UnknownSite { site_id, by } => {
                write!(f, "site_id ({site_id}) of {by} is not known; add the site first")
            }
            Self::UnknownNode { node_id, by } => {
                write!(f, "node_id ({node_id}) of {by} is not known; add the node first")
            }
            Self::InvalidField { field, detail } => write!(f, "{field} {detail}"),
        }
    }
}

impl std::error::Error for CoreError {}
