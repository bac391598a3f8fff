// Package deploytest holds the files of deploy/, and fly.toml, against the
// formats they are written in and the broker they start. It is a module of its
// own: what reads those formats is large and stays out of the product's.
package deploytest
