{{/*
Where clouds hand out the credentials of the machine, to whoever asks: AWS, Google and most others (169.254.169.254), Azure,
Alibaba; AWS, Google and Oracle by IPv6.
*/}}
{{- define "ml-assets.metadata-addresses" -}}
169.254.169.254 168.63.129.16 100.100.100.200 fd00:ec2::254 fd20:ce::254 fd00:c1::a9fe:a9fe
{{- end -}}

{{/* Where a NetworkPolicy lets pods go by address. Takes a range. */}}
{{- define "ml-assets.block" -}}
cidr: {{ . | quote }}
{{- with (include "ml-assets.except" . | fromJson).ranges }}
except: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Which of them are within an address range and not all of it, as JSON: {"ranges": [...]}. Takes a range. */}}
{{- define "ml-assets.except" -}}
{{- $length := int (last (splitList "/" .)) -}}
{{- $network := include "ml-assets.bits" . -}}
{{- $within := list -}}
{{- range $address := splitList " " (include "ml-assets.metadata-addresses" .) -}}
  {{- $bits := include "ml-assets.bits" $address -}}
  {{- if and (eq (len $bits) (len $network)) (lt $length (len $bits)) (hasPrefix (substr 0 $length $network) $bits) -}}
    {{- $within = append $within (printf "%s/%d" $address (len $bits)) -}}
  {{- end -}}
{{- end -}}
{{- dict "ranges" $within | toJson -}}
{{- end -}}

{{/* An address, or that of a range, as 32 or 128 binary digits: containment is a common prefix. */}}
{{- define "ml-assets.bits" -}}
{{- $address := first (splitList "/" .) -}}
{{- if contains ":" $address -}}
  {{- $halves := splitList "::" $address -}}
  {{- $groups := list -}}
  {{- range $half := $halves -}}
    {{- if not (regexMatch "^([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4})*)?$" $half) -}}
      {{- include "ml-assets.no-address" $address -}}
    {{- end -}}
    {{- $groups = append $groups (compact (splitList ":" $half)) -}}
  {{- end -}}
  {{- $left := first $groups -}}
  {{- $right := index (append $groups list) 1 -}}
  {{- $missing := int (sub 8 (add (len $left) (len $right))) -}}
  {{- if or (gt (len $halves) 2) (lt $missing (sub (len $halves) 1 | int)) (and (eq (len $halves) 1) $missing) -}}
    {{- include "ml-assets.no-address" $address -}}
  {{- end -}}
  {{- range $left }}{{ int64 (printf "0x%s" .) | printf "%016b" }}{{ end -}}
  {{- range until $missing }}{{ printf "%016b" 0 }}{{ end -}}
  {{- range $right }}{{ int64 (printf "0x%s" .) | printf "%016b" }}{{ end -}}
{{- else -}}
  {{- range splitList "." $address }}{{ int . | printf "%08b" }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "ml-assets.no-address" -}}
{{- fail (printf "network: %q is no address; expected one such as 10.20.0.10 or fd00::10" .) -}}
{{- end -}}
