//! Story 3: the daily TLS-RPT reports.
