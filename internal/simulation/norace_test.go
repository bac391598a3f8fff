//go:build !race

package simulation

// seeds is how many plans every test run tries.
const seeds = 200
