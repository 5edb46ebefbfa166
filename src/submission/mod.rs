//! Story 1: mail in.
