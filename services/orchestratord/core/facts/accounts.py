"""What each app has had of the GPUs: the app that has had least for its weight is next, whichever model it asks for.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) over all models and devices at once. Every app has a virtual time:
the device-seconds that it got, divided by its weight. One device-second is a whole device for a second; a run that
shares a device takes a part of it, and a load takes what the model holds for as long as it loads. What is only kept in
memory costs nothing.

An app that begins to wait starts where the apps are that wait already: a pause earns nothing, and a flood delays only
the app that sends it. Nor is an app owed without end what it could not use, as while its only device was away.
"""

from dataclasses import dataclass, field

MOST_OWED_S = 600.0
"""Device-seconds that an app can be behind what it would have had by its weight. Less than twice what turns among many
models need is too little: weights do not hold then.
"""

DEBTORS_KEPT = 64
"""Apps that wait for nothing, and had more than the others; they wait for it when they come."""


@dataclass(slots=True)
class Accounts:
    """`weights` has the apps whose weight is not 1."""

    weights: dict[str, float] = field(default_factory=dict)
    _times: dict[str, float] = field(default_factory=dict)
    _waiting: dict[str, int] = field(default_factory=dict)
    """By app: its tasks. What it runs is no reason to be owed anything: it asks for no more."""
    _served_at: dict[str, float] = field(default_factory=dict)
    """Of apps that wait: the virtual time at which each was served last, or at which it began to wait."""
    _clock: float = 0.0
    """Where an app starts that begins to wait. It never goes back."""
    _front: float = 0.0
    """The latest virtual time at which an app was served."""

    def weight(self, app: str) -> float:
        return self.weights.get(app, 1.0)

    def time_of(self, app: str) -> float:
        """Its virtual time, in device-seconds at weight 1."""
        return max(self._times.get(app, self._clock), self._front - MOST_OWED_S / self.weight(app))

    def time_at_start(self, app: str) -> float:
        """Where it is, or would be if one of its tasks began to wait now."""
        return self.time_of(app) if app in self._waiting else max(self.time_of(app), self._clock_now())

    def begins_to_wait(self, app: str) -> None:
        """One of its tasks begins to wait."""
        if app not in self._waiting:
            self._go_on()
            self._times[app] = self._served_at[app] = max(self.time_of(app), self._clock)
        self._waiting[app] = self._waiting.get(app, 0) + 1

    def waits_no_more(self, app: str) -> None:
        """One of its tasks waits no more."""
        self._waiting[app] -= 1
        if not self._waiting[app]:
            self._go_on()
            del self._waiting[app], self._served_at[app]
            self._forget_apps_without_debt()

    def charge(self, app: str, device_s: float) -> None:
        """For what the app gets from now on."""
        time = self.time_of(app)
        self._front = max(self._front, time)
        if app in self._waiting:
            self._served_at[app] = time
        self._times[app] = time + device_s / self.weight(app)

    def correct(self, app: str, device_s: float) -> None:
        """What it got took so much more than it was charged for, or less if below 0."""
        self._times[app] = self.time_of(app) + device_s / self.weight(app)

    def forget(self, app: str) -> None:
        """The app is gone. What still waits of it goes on with the debt that it has, at weight 1."""
        self.weights.pop(app, None)
        if app not in self._waiting:
            self._times.pop(app, None)

    def _go_on(self) -> None:
        self._clock = self._clock_now()

    def _clock_now(self) -> float:
        served_at = (min(time, self._times[app]) for app, time in self._served_at.items())
        return max(self._clock, min(served_at, default=0.0))

    def _forget_apps_without_debt(self) -> None:
        """Those that do not wait. Of more than `DEBTORS_KEPT` the least debts are let go as well."""
        away = sorted((app for app in self._times if app not in self._waiting), key=self._times.__getitem__)
        too_many = len(away) - DEBTORS_KEPT
        for place, app in enumerate(away):
            if place < too_many or self._times[app] <= self._clock:
                del self._times[app]
