//! Fitting the process to its host, on real network devices: veth pairs into network namespaces that each test makes and removes.
//! They need root and iproute2; where one is missing the tests say so, and in CI they fail.
// In a test, what cannot be unwrapped fails it.
#![allow(clippy::unwrap_used)]

// The clients and the child process of the crash tests: each test uses some of what they can.
#[allow(dead_code)]
#[path = "../crash/client.rs"]
mod client;
mod doctor;
mod flags;
mod namespace;
#[allow(dead_code)]
#[path = "../crash/server.rs"]
mod server;
