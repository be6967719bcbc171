//! The watches and the Events against a server that the test plays, on a paused clock.

mod events;
mod nodes;
mod server;
