package render

import (
	"fmt"
	"time"
)

// Clock is a time of today as 15:04, and an older one with its date.
func Clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// Span is a duration in its largest unit.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// Since says since when and how long: "since 14:02 (3 h ago)"; "" when unknown.
func Since(t, now time.Time) string {
	if t.IsZero() || t.UnixMilli() == 0 {
		return ""
	}
	return fmt.Sprintf(" since %s (%s ago)", Clock(t, now), Span(now.Sub(t)))
}
