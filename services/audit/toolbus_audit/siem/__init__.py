"""Events told to SIEMs as they come, from the stream, each sink at its own pace."""
