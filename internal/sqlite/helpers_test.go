package sqlite_test

import "context"

// bg is the context of what may outlive a test's own, such as a clean-up.
var bg = context.Background()
