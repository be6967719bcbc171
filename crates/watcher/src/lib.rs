//! Kubernetes list and watch, from Pods and Nodes to cluster events.
