//! Virtual files, figures, and what tools ask for.

pub(crate) mod access_log;
pub(crate) mod control;
pub(crate) mod info;
pub(crate) mod internal;
pub(crate) mod labels;
pub(crate) mod metrics;
