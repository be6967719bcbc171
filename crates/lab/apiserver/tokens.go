package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// holder is who holds a token: a user by name, or a service account, whose token may be bound to a Node.
type holder struct {
	User           string
	Groups         []string
	ServiceAccount *serviceaccount.ServiceAccountInfo
}

// tokens authenticates by a file that holds a JSON object of holders by token. It is read at each request, for tokens
// come while the server runs.
func tokens(path string) authenticator.Token {
	return authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, false, err
		}
		var holders map[string]holder
		if err := json.Unmarshal(content, &holders); err != nil {
			return nil, false, fmt.Errorf("%s: %w", path, err)
		}
		found, ok := holders[token]
		if !ok {
			return nil, false, nil
		}
		if found.ServiceAccount != nil {
			return &authenticator.Response{User: found.ServiceAccount.UserInfo()}, true, nil
		}
		groups := append(found.Groups, user.AllAuthenticated)
		return &authenticator.Response{User: &user.DefaultInfo{Name: found.User, Groups: groups}}, true, nil
	})
}
