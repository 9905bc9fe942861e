package main

import (
	"github.com/d-tsuji/flower/internal/api"
	"github.com/d-tsuji/flower/internal/program"
)

// programs tells the API what tasks can run, whatever the watchers are allowed to.
func programs() []api.Program {
	set := program.Default(program.Config{})
	list := make([]api.Program, 0, len(set))
	for _, name := range set.Names() {
		p := api.Program{Name: name, Needs: orNull(set.OffWithout(name)), Parameters: []api.Parameter{}}
		for _, d := range set[name].Parameters() {
			p.Parameters = append(p.Parameters, api.Parameter{
				Name: d.Name, Type: string(d.Type), Required: d.Required, Default: d.Default, Description: d.Description,
				Fixed: d.Fixed, Public: d.Public, OneOf: append([]string{}, d.OneOf...), Unit: orNull(d.Unit), Min: d.Min, Max: d.Max,
			})
		}
		list = append(list, p)
	}
	return list
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
