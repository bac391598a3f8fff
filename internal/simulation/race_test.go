//go:build race

package simulation

// seeds is how many plans every test run tries; the race detector is slow.
const seeds = 20
