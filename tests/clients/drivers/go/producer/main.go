// net/http's default client; `expect` waits for 100 Continue before each body.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

type post struct {
	Body    string
	Chunked bool
}

func main() {
	var posts []post
	if err := json.NewDecoder(os.Stdin).Decode(&posts); err != nil {
		panic(err)
	}
	lines := json.NewEncoder(os.Stdout)
	client := http.DefaultClient
	expect := len(os.Args) > 2 && os.Args[2] == "expect"
	if expect {
		client = &http.Client{Transport: &http.Transport{ExpectContinueTimeout: 20 * time.Second}}
	}
	for _, one := range posts {
		var body io.Reader = strings.NewReader(one.Body)
		if one.Chunked {
			body = struct{ io.Reader }{body}
		}
		request, err := http.NewRequest("POST", os.Args[1], body)
		if err != nil {
			panic(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if expect {
			request.Header.Set("Expect", "100-continue")
		}
		response, err := client.Do(request)
		if err != nil {
			panic(err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			panic(err)
		}
		response.Body.Close()
		lines.Encode([]any{response.StatusCode, string(text)})
	}
}
