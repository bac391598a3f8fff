// Package clustertest runs brokers in processes of their own, crowds of peers
// under load, and what stands between them, for tests that break all of that. It
// audits that the contract of delivery holds: what was acknowledged is shown
// exactly once and in order. The auditor is tested itself: an auditor that
// cannot fail proves nothing.
package clustertest
