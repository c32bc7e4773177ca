//! Placeholder of settings.
