//! The only crate that speaks netlink: sockets, batches, dumps, notifications, namespaces, sysctls.
