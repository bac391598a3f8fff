package client

import "time"

// Backoff is the limit of the wait after so many failures.
func Backoff(c *Client, failures int) time.Duration { return c.backoff(failures) }
