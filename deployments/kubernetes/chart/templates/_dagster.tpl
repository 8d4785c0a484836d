{{/* What Dagster itself is told: dagster.yaml, and the container context of a team's runs and steps. */}}

{{/* dagster.yaml, as the official chart writes it from the same values; ConfigMaps do not cross namespaces. */}}
{{- define "ml-assets.dagster-yaml" -}}
{{- $dagster := .Values.dagster -}}
{{- $launcher := $dagster.runLauncher.config.k8sRunLauncher -}}
{{- $daemon := $dagster.dagsterDaemon -}}
{{- $storage := include "ml-assets.postgres" . -}}
scheduler:
  module: dagster.core.scheduler
  class: DagsterDaemonScheduler
schedule_storage:
  module: dagster_postgres.schedule_storage
  class: PostgresScheduleStorage
  config: {{- $storage | nindent 4 }}
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    load_incluster_config: {{ $launcher.loadInclusterConfig }}
    job_namespace: {{ .Release.Namespace }}
    image_pull_policy: {{ $launcher.imagePullPolicy }}
    {{- with $dagster.imagePullSecrets }}
    image_pull_secrets: {{- toYaml . | nindent 6 }}
    {{- end }}
    service_account_name: {{ .Values.global.serviceAccountName }}
    dagster_home: {{ .Values.global.dagsterHome | quote }}
    instance_config_map: {{ .Values.global.fullnameOverride }}-instance
    postgres_password_secret: {{ .Values.global.postgresqlSecretName | quote }}
run_storage:
  module: dagster_postgres.run_storage
  class: PostgresRunStorage
  config: {{- $storage | nindent 4 }}
event_log_storage:
  module: dagster_postgres.event_log
  class: PostgresEventLogStorage
  config: {{- $storage | nindent 4 }}
run_coordinator: {{- $daemon.runCoordinator.config.customRunCoordinator | toYaml | nindent 2 }}
compute_logs:
  module: dagster.core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
run_monitoring:
  enabled: {{ $daemon.runMonitoring.enabled }}
  start_timeout_seconds: {{ $daemon.runMonitoring.startTimeoutSeconds }}
  cancel_timeout_seconds: {{ $daemon.runMonitoring.cancelTimeoutSeconds }}
  max_resume_run_attempts: {{ $daemon.runMonitoring.maxResumeRunAttempts }}
  poll_interval_seconds: {{ $daemon.runMonitoring.pollIntervalSeconds }}
  free_slots_after_run_end_seconds: {{ $daemon.runMonitoring.freeSlotsAfterRunEndSeconds }}
run_retries:
  enabled: {{ $daemon.runRetries.enabled }}
sensors:
  use_threads: {{ $daemon.sensors.useThreads }}
  num_workers: {{ $daemon.sensors.numWorkers }}
schedules:
  use_threads: {{ $daemon.schedules.useThreads }}
  num_workers: {{ $daemon.schedules.numWorkers }}
telemetry:
  enabled: {{ $dagster.telemetry.enabled }}
{{ $dagster.additionalInstanceConfig | toYaml }}
{{- end -}}

{{- define "ml-assets.postgres" -}}
{{- with .Values.dagster.postgresql -}}
postgres_db:
  username: {{ .postgresqlUsername }}
  password: {env: DAGSTER_PG_PASSWORD}
  hostname: {{ required "dagster.postgresql.postgresqlHost: expected the host of the PostgreSQL server" .postgresqlHost | quote }}
  db_name: {{ .postgresqlDatabase }}
  port: {{ .service.port }}
  params: {{- .postgresqlParams | toYaml | nindent 4 }}
  scheme: {{ .postgresqlScheme }}
{{- end -}}
{{- end -}}

{{/*
What dagster-k8s gives to the pods of a team's runs and, below their own op tags, of its steps. Takes (list $ team).
It has no limit of processor cores and no node selector: both would be merged into steps that need more cores, or other
nodes. The namespace's LimitRange gives the limit; ML_ASSETS_CORES tells a run worker its size.
*/}}
{{- define "ml-assets.container-context" -}}
{{- $ := index . 0 -}}
{{- $team := index . 1 -}}
k8s:
  namespace: {{ $team.namespace }}
  service_account_name: run-worker
  image_pull_policy: {{ $team.image.pullPolicy }}
  {{- with $.Values.imagePullSecrets }}
  image_pull_secrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  env_config_maps: [ml-assets]
  {{- with $team.secrets }}
  env_secrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    - {name: ML_ASSETS_CORES, value: {{ max 1 (int $team.runWorker.cores) | quote }}}
  labels: {ml-assets/team: {{ $team.name | quote }}}
  volumes: {{- include "ml-assets.volumes" $team | nindent 4 }}
  volume_mounts: {{- include "ml-assets.mounts" $ | nindent 4 }}
  resources:
    requests:
      cpu: {{ include "ml-assets.cpu" $team.runWorker.cores }}
      memory: {{ include "ml-assets.memory" $team.runWorker.memoryGib }}
    limits:
      memory: {{ include "ml-assets.memory" $team.runWorker.memoryGib }}
  security_context: {{- include "ml-assets.container-security" $ | nindent 4 }}
  run_k8s_config:
    pod_spec_config:
      automount_service_account_token: true
      enable_service_links: false
      security_context: {{- include "ml-assets.pod-security" $ | nindent 8 }}
    pod_template_spec_metadata:
      # The account of steps in pods of their own, which may do nothing.
      annotations: {ml-assets/step-account: step}
{{- end -}}
