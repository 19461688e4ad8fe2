// r3labs/sse: reconnects and resumes by itself after a cut; a clean end is an end, and its user connects again.
package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	lines := json.NewEncoder(os.Stdout)
	// Its default buffer of 64 KB ends the connection at a longer line.
	client := sse.NewClient(os.Args[1], sse.ClientMaxBufferSize(1<<20))
	for {
		client.SubscribeRaw(func(event *sse.Event) {
			name := string(event.Event)
			if name == "" {
				name = "message"
			}
			lines.Encode([]string{name, string(event.Data)})
		})
		time.Sleep(100 * time.Millisecond)
	}
}
