package fusefs

const helperName = "open-and-wait"

func openAndWait(_, _ string) int { return 0 }
