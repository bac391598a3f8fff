// Package faults breaks a broker, peers, connections and clocks under load. It
// holds nothing but tests.
package faults
