// Inside is what tests run in containers of a real engine: a static program, alone in its
// image.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch argument(1) {
	case "look": // prints what it sees
		status, _ := os.ReadFile("/proc/self/status")
		seen := map[string]any{"uid": os.Getuid(), "env": os.Environ(), "pid": os.Getpid()}
		for line := range strings.Lines(string(status)) {
			if name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "CapEff" || name == "CapBnd" || name == "NoNewPrivs" {
				seen[name] = strings.TrimSpace(value)
			}
		}
		interfaces, _ := net.Interfaces()
		names := []string{}
		for _, i := range interfaces {
			if i.Flags&net.FlagUp != 0 {
				names = append(names, i.Name)
			}
		}
		seen["interfaces"] = names
		for _, dir := range []string{"/in", "/out"} {
			seen[dir] = os.WriteFile(dir+"/written", nil, 0o666) == nil
		}
		_ = json.NewEncoder(os.Stdout).Encode(seen)
	case "exit": // CODE TEXT
		fmt.Fprintln(os.Stderr, argument(3))
		os.Exit(number(2))
	case "wait": // FILE: for a file, then prints how often it was started
		fmt.Println("waiting")
		for {
			if _, err := os.Stat(argument(2)); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Printf("{\"attempt\": %q}\n", os.Getenv("FLOWER_ATTEMPT"))
	case "alone": // fails if another one is at it
		file, err := os.OpenFile("/out/lock", os.O_CREATE|os.O_RDWR, 0o666)
		if err == nil {
			err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(9)
		}
		time.Sleep(50 * time.Millisecond)
	case "deaf": // does not heed SIGTERM
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf")
		time.Sleep(time.Hour)
	case "heed": // ends on SIGTERM, and says so in a file
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		fmt.Println("listening")
		<-term
		_ = os.WriteFile("/out/heeded", nil, 0o666)
	case "eat": // more and more memory
		var eaten [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			eaten = append(eaten, b)
			fmt.Println(len(eaten))
		}
	case "flood": // MEGABYTES of lines, then JSON
		block := strings.Repeat(strings.Repeat("x", 99)+"\n", 1000)
		for range number(2) * 10 {
			_, _ = os.Stdout.WriteString(block)
		}
		fmt.Println(`{"done": true}`)
	default:
		fmt.Fprintln(os.Stderr, "what?")
		os.Exit(2)
	}
}

func argument(i int) string {
	if i < len(os.Args) {
		return os.Args[i]
	}
	return ""
}

func number(i int) int {
	n, _ := strconv.Atoi(argument(i))
	return n
}
