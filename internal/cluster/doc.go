// Package cluster breaks brokers that share a database, and what they share,
// under load. It holds nothing but tests.
package cluster
