//! HTTP at the edge, without a socket: what is taken and refused, and how a connection behaves over time.

mod conformance;
mod connection;
mod harness;
