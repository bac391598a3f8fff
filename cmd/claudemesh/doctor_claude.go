package main

import "context"

func (a *app) checkClaude(context.Context) []finding { return nil }
