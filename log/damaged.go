package log

import "errors"

// ErrDamaged is matched by every error about stored bytes that are not what
// was written.
var ErrDamaged = errors.New("damaged")
