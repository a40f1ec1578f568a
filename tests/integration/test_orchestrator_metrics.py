"""Metrics as a scraper gets them through the gateway."""

from prometheus_client.parser import text_string_to_metric_families

from support.whole_system import WholeSystem, task


async def test_the_gateway_answers_the_orchestrators_metrics(system: WholeSystem) -> None:
    await system.generate(task(max_tokens=8))
    answer = await system.http.get("/v2/meta/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["llorch_admissions_total", ("priority", "interactive"), ("reason", "admitted")] == 1
    assert found["llorch_tokens_total", ("direction", "out"), ("model", "sim")] == 8
    assert found["llorch_model_loads_total", ("model", "sim"), ("outcome", "ready")] == 1
    assert found["llorch_device_usable", ("card", "RTX 3090"), ("device", "sim-0"), ("node", "garage")] == 1
