package definition

import _ "embed" // for the schema

// Schema is the JSON schema of the format (draft 2020-12).
//
//go:embed workflow.schema.json
var Schema []byte
