package dev.externalip.hotrod;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoop;
import io.netty.channel.EventLoopGroup;

/**
 * An event loop group whose channels look up the map when they connect. A channel's pipeline is the application's until
 * it is registered, which is before it connects: that is where the lookup is put first, whatever kind of channel it is.
 *
 * <p>A member's name is looked up earlier, by Netty's resolver. Bootstrap takes the channel from the answer to its
 * registration, and asks on that channel's loop; the resolver registers its own channel there. So what stands in for the
 * loop puts our answers into that channel. All of it lasts as long as connecting does: the connection itself has its own
 * channel and loop.
 */
final class MappedGroup {
    private final AddressMap map;
    /** By the loop they stand in for: a resolver is kept for each of them. */
    private final Map<EventLoop, EventLoop> lookups = new ConcurrentHashMap<>();

    private MappedGroup(AddressMap map) {
        this.map = map;
    }

    static EventLoopGroup of(EventLoopGroup group, AddressMap map) {
        MappedGroup mapped = new MappedGroup(map);
        return instead(EventLoopGroup.class, group, (method, arguments, own) -> {
            if (!method.equals("register") || !(arguments[0] instanceof Channel channel)) {
                return own.call();
            }
            channel.pipeline().addFirst(new MappedConnect(map));
            return mapped.registered((ChannelFuture) own.call());
        });
    }

    /**
     * Said to be done: what follows is done by the channel's loop, which comes to it after the registration. A promise to
     * connect that waited for it would hold the channel's stand-in for as long as the connection lasts.
     */
    private ChannelFuture registered(ChannelFuture registration) {
        Channel channel = instead(Channel.class, registration.channel(), (method, arguments, own) ->
            method.equals("eventLoop") ? lookups.computeIfAbsent((EventLoop) own.call(), this::lookups) : own.call());
        return instead(ChannelFuture.class, registration, (method, arguments, own) -> switch (method) {
            case "channel" -> channel;
            case "isDone", "isSuccess" -> registration.cause() == null;
            default -> own.call();
        });
    }

    private EventLoop lookups(EventLoop loop) {
        return instead(EventLoop.class, loop, (method, arguments, own) -> {
            if (method.equals("register") && arguments[0] instanceof Channel channel) {
                // after the resolver's own handlers: this is where its questions are still objects
                channel.pipeline().addLast(new ChannelInitializer<>() {
                    @Override
                    protected void initChannel(Channel resolver) {
                        resolver.pipeline().addLast(new MappedNames(map));
                    }
                });
            }
            return own.call();
        });
    }

    private interface Own {
        Object call() throws Throwable;
    }

    private interface Call {
        Object of(String method, Object[] arguments, Own own) throws Throwable;
    }

    /** A proxy, because the classes for epoll and io_uring are final and the interfaces have dozens of methods. */
    private static <T> T instead(Class<T> type, T of, Call call) {
        return type.cast(Proxy.newProxyInstance(MappedGroup.class.getClassLoader(), new Class<?>[] {type},
            (proxy, method, arguments) -> call.of(method.getName(), arguments, () -> {
                try {
                    return method.invoke(of, arguments);
                } catch (InvocationTargetException e) {
                    throw e.getCause();
                }
            })));
    }
}
