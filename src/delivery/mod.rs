//! Story 2: mail out.
